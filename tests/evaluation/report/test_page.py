"""The written report: whole, safe, offline, of modest size, and possible at any state of a run."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from evaluation.report import AttentionPanel, BoxPanel, RankedImage, ReportPanels, RetrievalPanel, write_report

EVIL = '<script>alert("x")</script>'


class Page(HTMLParser):
    """Elements with their attributes, and the text of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def photograph(seed: int, size: int = 48) -> np.ndarray:
    """uint8 [size, size, 3]: patches of colour with grain."""
    rng = np.random.default_rng(seed)
    patches = rng.integers(20, 235, (size // 16, size // 16, 3)).repeat(16, 0).repeat(16, 1)
    return (patches + rng.integers(-6, 7, patches.shape)).astype(np.uint8)


def some_panels(count: int, size: int = 48, text: str = "a red circle") -> ReportPanels:
    images = [photograph(seed, size) for seed in range(count)]
    maps = np.random.default_rng(0).random((3, 6, 6))
    ranked = [RankedImage(images[rank % count], 5.0 - rank, rank == 1, text) for rank in range(5)]
    return ReportPanels(
        boxes=[BoxPanel(image, text, [1, 2, 20, 20], [2, 2, 20, 20], 0.9) for image in images],
        retrieval=[RetrievalPanel(text, ranked) for _ in images],
        attention=[AttentionPanel(image, ["a", "red", text], maps) for image in images],
    )


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    run = tmp_path / "tiny"
    run.mkdir()
    metrics = {"accuracy": 86.4, "mean_iou": 0.74}
    result = {"task": "grounding", "metrics": metrics, "baselines": {"mean box": {"accuracy": 4.2}, "largest object": {"accuracy": 27.9}}}
    (run / "metrics.json").write_text(json.dumps(result | {"best_step": 800}))
    lines = [{"step": s, "time": 1.7e9 + s, "kind": "train", "loss": 5 / s, "data/box_l1": 1 / s, "lr": 1e-3} for s in range(10, 1010, 10)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 10')
    (run / "config.yaml").write_text(f"task: grounding\nseed: 17\nnote: '{EVIL}'\n")
    environment = {
        "git": {"commit": "0123456789abcdef", "changed": True},
        "command": ["run.py", "--config", "configs/tiny.yaml"],
        "python": "3.11.9",
        "packages": {"torch": "2.13.0"},
        "host": "fern",
    }
    (run / "environment.json").write_text(json.dumps(environment))
    (run / "bad_records.txt").write_text("".join(f"shard.tar, record {n}: undecodable {EVIL}\n" for n in range(60)))
    return run


def test_the_head_says_what_was_run(finished: Path) -> None:
    words = Page(write_report(finished, ReportPanels()).read_text()).words
    for expected in (
        "grounding",
        "tiny",
        "configs/tiny.yaml",
        "0123456789ab + changes",
        "17",
        "1,000",
        "800",
        "16 min 30 s",
        "fern",
        "torch 2.13.0",
    ):
        assert expected in words


def test_numbers_stand_beside_their_baselines(finished: Path) -> None:
    words = Page(write_report(finished, ReportPanels()).read_text()).words
    assert re.search(r"accuracy, IoU >= 0.5\s*86.4 %\s*4.2 %\s*27.9 %", words)
    assert "largest object 27.9 %" in words  # the headline names the strongest guess


def test_the_page_needs_nothing_from_outside(finished: Path) -> None:
    page = Page(write_report(finished, some_panels(2)).read_text())
    assert not page.all("script")
    assert not page.all("link")
    sources = [
        attributes.get("src") or attributes.get("href") for tag, attributes in page.elements if tag in ("img", "image", "a", "iframe")
    ]
    assert sources
    assert all(source is not None and source.startswith("data:image/") for source in sources)
    assert not re.search(r"url\(|@import", (finished / "report.html").read_text())


def test_texts_are_shown_and_never_executed(finished: Path) -> None:
    page = Page(write_report(finished, some_panels(2, text=f'{EVIL} " onload="x')).read_text())
    assert not page.all("script")
    assert not any("onload" in attributes for _, attributes in page.elements)
    assert page.words.count(EVIL) > 6


def test_every_picture_has_a_description(finished: Path) -> None:
    page = Page(write_report(finished, some_panels(2)).read_text())
    assert len(page.all("img")) > 10
    assert all(image.get("alt") for image in page.all("img"))
    boxes = [attributes for attributes in page.all("svg") if attributes.get("role") == "img"]
    assert [box["aria-label"] for box in boxes] == ["Image with the predicted and the true box for “a red circle”, IoU 0.90."] * 2


def test_boxes_are_drawn_in_the_pixels_of_their_image(finished: Path) -> None:
    page = Page(write_report(finished, some_panels(1)).read_text())
    drawn = {box["class"]: [box[name] for name in ("x", "y", "width", "height")] for box in page.all("rect")}
    assert drawn["predicted"] == ["1.0", "2.0", "20.0", "20.0"]
    assert drawn["true"] == ["2.0", "2.0", "20.0", "20.0"]
    assert any(attributes.get("viewbox") == "0 0 48 48" for attributes in page.all("svg"))


def test_a_box_without_truth_is_neither_right_nor_wrong(finished: Path) -> None:
    panels = ReportPanels(boxes=[BoxPanel(photograph(0), "a cat", [1, 2, 3, 4])])
    page = Page(write_report(finished, panels).read_text())
    assert {box["class"] for box in page.all("rect")} == {"halo", "predicted"}
    assert "✗" not in page.words
    assert "✓" not in page.words


def test_right_images_are_marked(finished: Path) -> None:
    page = Page(write_report(finished, some_panels(1)).read_text())
    assert "right image at rank 2" in page.words
    assert len([figure for figure in page.all("figure") if figure.get("class") == "correct"]) == 1


def test_skipped_records_are_counted_and_listed_in_part(finished: Path) -> None:
    words = Page(write_report(finished, ReportPanels()).read_text()).words
    assert "Skipped records: 60" in words
    assert "record 49:" in words
    assert "record 50:" not in words


def test_counts_of_the_run_win_over_counting_lines(finished: Path) -> None:
    result = json.loads((finished / "metrics.json").read_text())
    (finished / "metrics.json").write_text(json.dumps(result | {"seconds": 3700, "records_read": 25600, "records_skipped": 61}))
    words = Page(write_report(finished, ReportPanels()).read_text()).words
    assert "Skipped records: 61 of 25,600" in words
    assert "1 h 1 min" in words


def test_a_run_without_any_file_still_has_a_report(tmp_path: Path) -> None:
    words = Page(write_report(tmp_path, ReportPanels()).read_text()).words
    assert "not finished" in words
    for hint in ("has been evaluated", "logged its first step", "Boxes appear", "Retrieved images appear", "Attention maps appear"):
        assert hint in words


def test_damaged_side_files_do_not_cost_the_report(finished: Path) -> None:
    (finished / "environment.json").write_text('{"commit": ')
    (finished / "config.yaml").write_text("task: [grounding")
    assert "86.4 %" in write_report(finished, ReportPanels()).read_text()


def test_sixteen_panels_of_each_kind_stay_small(finished: Path) -> None:
    assert write_report(finished, some_panels(16, size=384)).stat().st_size < 3e6


def test_maps_and_words_must_pair(finished: Path) -> None:
    panels = ReportPanels(attention=[AttentionPanel(photograph(0), ["one", "two"], np.ones((3, 6, 6)))])
    with pytest.raises(ValueError, match="2 words"):
        write_report(finished, panels)
