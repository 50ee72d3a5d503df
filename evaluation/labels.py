"""How a metric is called, printed and plotted, in one place for tables and reports."""

from dataclasses import dataclass


@dataclass(frozen=True)
class MetricLabel:
    """The outward look of one metric."""

    text: str
    unit: str = ""
    """Empty or "%"."""
    digits: int = 3
    """Digits after the point."""
    chart: str = ""
    """Metrics with the same chart are drawn in one picture; empty: a picture of its own."""


VQA_KINDS = ("yes_no", "number", "other")
CLIP_KINDS = ("path", "turn", "color", "succession")
LABELS: dict[str, MetricLabel] = {
    **{f"tr_r{k}": MetricLabel(f"TR R@{k}", "%", 1, "Image to text") for k in (1, 5, 10)},
    "tr_mean": MetricLabel("TR mean", "%", 1, "Recall means"),
    **{f"ir_r{k}": MetricLabel(f"IR R@{k}", "%", 1, "Text to image") for k in (1, 5, 10)},
    "ir_mean": MetricLabel("IR mean", "%", 1, "Recall means"),
    "r_mean": MetricLabel("mean recall", "%", 1, "Recall means"),
    "itc_tr_r1": MetricLabel("TR R@1, features only", "%", 1, "Before re-ranking"),
    "itc_ir_r1": MetricLabel("IR R@1, features only", "%", 1, "Before re-ranking"),
    "itc_r_mean": MetricLabel("mean recall, features only", "%", 1, "Before re-ranking"),
    "accuracy": MetricLabel("accuracy, IoU >= 0.5", "%", 1, "Accuracy"),
    "accuracy_inclusive": MetricLabel("accuracy, official IoU", "%", 1, "Accuracy"),
    "pointing": MetricLabel("pointing accuracy", "%", 1, "Phrases to regions"),
    **{f"recall_{k}": MetricLabel(f"R@{k}, IoU >= 0.5", "%", 1, "Phrases to regions") for k in (1, 5, 10)},
    "acc": MetricLabel("accuracy", "%", 1, "Right answers"),
    "itc_acc": MetricLabel("accuracy, features only", "%", 1, "Right answers"),
    **{f"{kind}_acc": MetricLabel(f"accuracy, {kind}", "%", 1, "Right answers") for kind in CLIP_KINDS},
    "acc_top5": MetricLabel("among the best five", "%", 1, "Right answers"),
    "mean_per_class": MetricLabel("accuracy, mean over classes", "%", 1, "Right answers"),
    "f1": MetricLabel("F1", "%", 1, "Right answers"),
    **{name: MetricLabel(f"{name.capitalize()} (x 100)", "", 1, "Correlation") for name in ("matthews", "pearson", "spearman")},
    "map": MetricLabel("mAP", "%", 1, "Average precision"),
    **{f"map_{group}": MetricLabel(f"mAP, {group}", "%", 1, "Average precision") for group in ("head", "medium", "tail")},
    "consistency": MetricLabel("consistency", "%", 1, "Right answers"),
    "vqa_accuracy": MetricLabel("VQA accuracy", "%", 1, "VQA accuracy"),
    **{f"vqa_accuracy_{kind}": MetricLabel(f"VQA accuracy, {kind.replace('_', '/')}", "%", 1, "VQA accuracy") for kind in VQA_KINDS},
    **{f"bleu{n}": MetricLabel(f"BLEU-{n}", "%", 1, "BLEU") for n in (1, 2, 3, 4)},
    **{f"bleu{n}_words": MetricLabel(f"BLEU-{n}, own words", "%", 1, "BLEU, own words") for n in (1, 2, 3, 4)},
    "meteor": MetricLabel("METEOR", "%", 1),
    "rouge_l": MetricLabel("ROUGE-L", "%", 1),
    "cider": MetricLabel("CIDEr", "%", 1),
    "cider_words": MetricLabel("CIDEr, own words", "%", 1, "CIDEr, own words"),
    "spice": MetricLabel("SPICE", "%", 1),
    "exact_match": MetricLabel("exact match", "%", 1, "Exact match"),
    "mean_iou": MetricLabel("mean IoU", "", 3, "Mean IoU"),
}


def metric_label(name: str) -> MetricLabel:
    """The label of a metric; a name such as "test/tr_r1" keeps what stands before the last slash, an unknown one is spelt out."""
    scope, _, base = name.rpartition("/")
    known = LABELS.get(base, MetricLabel(base.replace("_", " ")))
    return MetricLabel(f"{scope} {known.text}", known.unit, known.digits, known.chart) if scope else known


def format_metric(name: str, value: float | None) -> str:
    """A value with the digits and unit of its metric, "-" where there is none. A number that would round to 0 keeps two digits."""
    if value is None or value != value:
        return "-"
    label = metric_label(name)
    text = f"{value:.{label.digits}f}"
    if value and not float(text):
        text = f"{value:.1e}" if abs(value) < 1e-4 else f"{value:.2g}"
    return f"{text} {label.unit}".rstrip()
