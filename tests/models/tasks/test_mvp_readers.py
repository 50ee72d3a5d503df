"""MVP in the tasks: what learns, that ranking sees the pairs that training sees, and where heads start from."""

from typing import Any

import pytest
import torch
from torch import Tensor

from common.distributed import GradientMode
from common.labels import IGNORED
from concepts import MODEL
from models.objectives.answers import soft_scores
from models.tasks.base import Task
from models.tasks.classification import Classification, HeadConfig, predict_classes
from models.tasks.mvp import mvp_states
from models.tasks.mvp_readers import ImageReading, LabelReader, MvpAnswering, MvpRetrieval, RetrievalReader, StatementReader
from models.tasks.nlvr import Nlvr, predict_statements

READING = ImageReading(((0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 0.5), (0.5, 0.5, 1.0, 1.0)), (2, 3))
ROWS, ANSWERS = 4, 5
HEAD = HeadConfig(classes=3, depth="linear")


def batch() -> dict[str, Tensor]:
    draws = torch.Generator().manual_seed(0)
    lengths = torch.tensor([8, 5, 3, 6])
    return {
        "image": torch.randint(0, 256, (ROWS, 3, 32, 32), dtype=torch.uint8, generator=draws),
        "text_ids": torch.randint(5, 250, (ROWS, 8), generator=draws),
        "text_mask": torch.arange(8) < lengths[:, None],
        "sample_ids": torch.arange(ROWS),
        "group": torch.zeros(ROWS, dtype=torch.int64),
        "negative_draws": torch.rand(ROWS, 2, generator=draws),
        "answer_owner": torch.tensor([0, 0, 1, 2, 3]),
        "answer_labels": torch.tensor([0, 1, 4, 2, 2]),
        "answer_weights": torch.tensor([0.2, 0.8, 1.0, 1.0, 1.0]),
        "label": torch.tensor([0, 1, 1, 0]),
    }


def tasks(mode: GradientMode = "exact") -> dict[str, Task]:
    torch.manual_seed(0)
    return {
        "retrieval": MvpRetrieval(MODEL, READING, {"itc": 1.0, "itm": 1.0}, mode),
        "vqa": MvpAnswering(MODEL, READING, ANSWERS),
        "labels": Classification(MODEL, HEAD, mode, model=LabelReader(MODEL, READING, HEAD)),
        "nlvr": Nlvr(MODEL, "concatenated", mode, StatementReader(MODEL, READING)),
    }


@pytest.mark.parametrize("name", ["retrieval", "vqa", "labels", "nlvr"])
def test_every_parameter_learns_and_phrases_and_words_alike(name: str) -> None:
    task, given = tasks()[name], batch()
    if name == "nlvr":
        given["image"] = torch.cat([given["image"], given["image"].flip(0)])
    losses = task({"train": given})
    assert set(losses) == set(task.weights)
    torch.stack([*losses.values()]).sum().backward()
    assert [key for key, parameter in task.named_parameters() if parameter.grad is None] == []
    rows = task.get_parameter("model.mvp.embeddings.words.weight").grad
    assert rows is not None
    assert rows[given["text_ids"][given["text_mask"]]].any(dim=1).all() and rows[list(READING.tag_ids)].any(dim=1).all()


def test_ranking_gives_pairs_the_features_and_logits_that_training_gives_them() -> None:
    task, given = tasks()["retrieval"].eval(), batch()
    assert isinstance(task, MvpRetrieval)
    model = task.model
    with torch.no_grad():
        read = {**model.concepts(given), "side_draws": torch.zeros(ROWS)}
        states = mvp_states(model.mvp, read, ("itc", "itm"), task.learning)
        assert states.positive is not None
        tokens, text = model.encode_images(given["image"]), model.encode_text(given["text_ids"], given["text_mask"])
        torch.testing.assert_close(model.image_features(tokens[:, 0]), states.image_features)
        torch.testing.assert_close(model.text_features(text), states.text_features)
        counts = torch.ones(ROWS, dtype=torch.int64)
        packed, lengths = text[given["text_mask"]], given["text_mask"].sum(dim=1)
        found = model.match_candidates(model.context(tokens), packed, lengths, counts)
        torch.testing.assert_close(found, model.mvp.match_logits(model.mvp.pool(states.positive[-1]))[:, 1])
        two = torch.tensor([0, 2, 0, 2])  # images 1 and 3 alone, with two texts each
        again = model.match_candidates(model.context(tokens), packed, lengths, two)
    torch.testing.assert_close(again[[1, 3]], found[[1, 3]])
    assert (again[[0, 2]] - found[[0, 2]]).abs().min() > 1e-4  # with another image


def test_wrong_sides_say_nothing_of_the_wrong_partners_that_are_drawn() -> None:
    draws = torch.rand(20_000, 2, generator=torch.Generator().manual_seed(0))
    side = draws.sum(dim=1) % 1.0
    table = torch.corrcoef(torch.stack([side, draws[:, 0], draws[:, 1]]))
    assert table.fill_diagonal_(0).abs().max() < 0.03 and side.mean() == pytest.approx(0.5, abs=0.01)


def test_only_pairs_with_a_partner_count() -> None:
    given = batch() | {"sample_ids": torch.tensor([0, 1, 0, 0]), "group": torch.tensor([0, 0, 1, 1])}
    assert tasks()["retrieval"].row_counts({"train": given})["train/itm"] == ROWS + 2
    assert tasks("paper")["retrieval"].row_counts({"train": given}) == {}


def test_an_answer_scores_three_tenths_for_each_who_gave_it_and_at_most_one() -> None:
    labels, owner = torch.tensor([0, 2, IGNORED, 1]), torch.tensor([0, 0, 0, 1])
    found = soft_scores(labels, owner, torch.tensor([0.1, 0.3, 0.6, 0.4]), (3, 3))
    torch.testing.assert_close(found, torch.tensor([[0.3, 0.0, 0.9], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]))


def test_heads_for_other_labels_start_fresh_and_answers_from_what_predicts_words() -> None:
    answering: Any = tasks()["vqa"].model
    own = answering.state_dict()
    file = {name: tensor for name, tensor in own.items() if "vqa_head" not in name}
    words = {f"mvp.mlm_head.{part}": own[f"mvp.vqa_head.{part}"] for part in ("dense.weight", "dense.bias", "norm.weight", "norm.bias")}
    adopted = answering.adopt(file | words)
    assert adopted["mvp.vqa_head.dense.weight"] == "mvp.mlm_head.dense.weight" and "mvp.vqa_head.bias" not in adopted
    assert answering.adopt(dict(own))["mvp.vqa_head.bias"] == "mvp.vqa_head.bias"
    reader = RetrievalReader(MODEL, READING)
    other = dict(reader.state_dict()) | {"mvp.cls_head.bias": torch.zeros(7)}
    assert "mvp.cls_head.weight" not in reader.adopt(other) and "mvp.pooler.weight" in reader.adopt(other)


def test_statements_are_judged_by_both_images_in_their_order() -> None:
    model: Any = tasks()["nlvr"].model.eval()
    given = batch()
    text, first = (given["text_ids"], given["text_mask"]), given["image"]
    second = first.roll(1, dims=0)

    def judged(*images: Tensor) -> Tensor:
        return predict_statements(model, torch.cat(images), *text)

    found = judged(first, second)
    for other in (judged(first, first), judged(second, second), judged(second, first)):
        assert (found - other).abs().min() > 1e-5
    torch.testing.assert_close(found[:1], predict_statements(model, torch.cat([first[:1], second[:1]]), *(part[:1] for part in text)))


def test_probabilities_of_labels_do_not_depend_on_padding() -> None:
    model: Any = tasks()["labels"].model.eval()
    given = batch()
    longer = {key: torch.nn.functional.pad(given[key], (0, 4)) for key in ("text_ids", "text_mask")}
    found = predict_classes(model, given)
    torch.testing.assert_close(found, predict_classes(model, given | longer))
    torch.testing.assert_close(found.sum(dim=1), torch.ones(ROWS))
