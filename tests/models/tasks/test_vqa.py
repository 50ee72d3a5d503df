"""Question answering: the decoder, its losses, and three ways to answer."""

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from models.answering import AnsweringModel
from models.checkpoints.load import load_checkpoint
from models.config import DecoderConfig, ModelConfig
from models.decoder import Memory
from models.generation import BeamSettings
from models.tasks import vqa as module
from models.tasks.vqa import VQA, AnswerList, Classification, Generation, Ranking, likeliest_first, rank_answers
from models.vlm import VisionLanguageModel
from task_batches import VOCABULARY, small_config

START, END = 2, 3


def config_of(kind: str = "bert", layers: int = 2) -> ModelConfig:
    config = small_config()
    text = config.text.model_copy(update={"kind": kind})
    return config.model_copy(update={"text": text, "fusion": config.fusion.model_copy(update={"layers": layers})})


def model_of(kind: str = "bert", classes: int | None = None) -> AnsweringModel:
    torch.manual_seed(0)
    model = AnsweringModel(config_of(kind), classes).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def questions(rows: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.tensor([6, 3, 5, 4])[:rows, None]
    return {
        "image": torch.randint(0, 256, (rows, 3, 16, 16), generator=generator, dtype=torch.uint8),
        "text_ids": torch.randint(5, VOCABULARY, (rows, 6), generator=generator),
        "text_mask": torch.arange(6) < lengths,
    }


def answer_list() -> AnswerList:
    """Of different lengths; some share their first token."""
    texts = [[7], [8], [7, 9], [9, 10, 11], [8, 12], [10], [7, 13, 14]]
    ids = torch.zeros(len(texts), 5, dtype=torch.int64)
    for row, text in enumerate(texts):
        ids[row, : len(text) + 2] = torch.tensor([START, *text, END])
    return AnswerList(ids, ids != 0)


def memory_of(model: AnsweringModel, batch: dict[str, Tensor]) -> Memory:
    states = model.read_questions(batch["image"], batch["text_ids"], batch["text_mask"])
    return model.answer_decoder().memory(states, batch["text_mask"])


@torch.no_grad()
def brute_force(model: AnsweringModel, answers: AnswerList, row: int) -> list[float]:
    """log p(first token) + log p(answer) of every answer for one question, each read alone."""
    batch = {name: value[row : row + 1] for name, value in questions().items()}
    decoder, memory = model.answer_decoder(), memory_of(model, batch)
    scores = []
    for ids, mask in zip(answers.ids, answers.mask, strict=True):
        text = ids[mask][None]
        steps = decoder.logits(decoder(text, None, memory)).log_softmax(dim=-1)[0, :-1].gather(1, text[0, 1:, None])
        scores.append(float(steps[0] + steps.sum()))
    return scores


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_reading_token_by_token_equals_reading_the_whole(kind: str) -> None:
    model = model_of(kind)
    decoder, memory = model.answer_decoder(), memory_of(model, questions())
    ids = torch.randint(5, VOCABULARY, (6, 4))  # two texts a question
    whole = decoder.logits(decoder(ids, None, memory))
    past = []
    for place in range(4):
        logits, past = decoder.step(ids[:, place : place + 1], memory, past)
        torch.testing.assert_close(logits, whole[:, place])


def test_later_tokens_and_padding_change_nothing_before_them() -> None:
    model = model_of()
    decoder, memory = model.answer_decoder(), memory_of(model, questions())
    ids = torch.randint(5, VOCABULARY, (3, 4))
    mask = torch.tensor([[True, True, True, False]]).expand(3, -1)
    padded = decoder(ids, mask, memory)[:, :3]
    torch.testing.assert_close(padded, decoder(ids[:, :3], None, memory))


def test_texts_of_one_question_share_its_keys_as_if_each_had_a_copy() -> None:
    model = model_of()
    decoder, memory = model.answer_decoder(), memory_of(model, questions())
    ids = torch.randint(5, VOCABULARY, (6, 4))
    owner = torch.tensor([0, 0, 1, 1, 2, 2])
    torch.testing.assert_close(decoder(ids, None, memory), decoder(ids, None, memory.of(owner)))


def test_ranking_all_answers_equals_scoring_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model, answers = model_of(), answer_list()
    ranked = rank_answers(model.answer_decoder(), memory_of(model, questions()), answers, 99)
    for row in range(3):
        scores = torch.tensor(brute_force(model, answers, row))
        assert ranked.answer[row].tolist() == scores.argsort(descending=True).tolist()
        torch.testing.assert_close(ranked.probability[row], scores.softmax(dim=0).sort(descending=True).values, rtol=1e-4, atol=1e-6)
    monkeypatch.setattr(module, "TOKENS_AT_ONCE", 1)  # one candidate at a time
    torch.testing.assert_close(rank_answers(model.answer_decoder(), memory_of(model, questions()), answers, 99), ranked)


def test_only_answers_with_the_likeliest_first_token_are_ranked() -> None:
    model, answers = model_of(), answer_list()
    decoder, memory = model.answer_decoder(), memory_of(model, questions())
    candidates, first = likeliest_first(decoder, memory, answers, 3)
    following = decoder.logits(decoder(torch.full((3, 1), START), None, memory))[:, 0].softmax(dim=1)[:, answers.ids[:, 1]]
    torch.testing.assert_close(first, following.topk(3, dim=1).values)
    assert rank_answers(decoder, memory, answers, 3).answer.sort(dim=1).values.tolist() == candidates.sort(dim=1).values.tolist()


def test_answers_of_a_batch_are_those_of_each_question_alone() -> None:
    model, batch = model_of(), questions()
    ways = [Ranking(answer_list(), 4), Generation(START, END, BeamSettings(3, 4))]
    for answer in ways:
        together = answer(model, *batch.values())
        for row in range(3):
            length = int(batch["text_mask"][row].sum())  # without padding
            alone = answer(
                model, batch["image"][row : row + 1], batch["text_ids"][row : row + 1, :length], batch["text_mask"][row : row + 1, :length]
            )
            torch.testing.assert_close(together.confidence[row : row + 1], alone.confidence)
            if together.index is not None and alone.index is not None:
                assert together.index[row] == alone.index[0]


def train_batch(classes: bool) -> dict[str, Tensor]:
    answers = answer_list()
    chosen = torch.tensor([0, 3, 4, 6])
    shared = {"answer_owner": torch.tensor([0, 0, 1, 2]), "answer_weights": torch.tensor([0.7, 0.3, 1.0, 0.5])}
    labels = {"answer_labels": torch.tensor([0, 3, -100, 6])}
    return questions() | shared | (labels if classes else {"answer_ids": answers.ids[chosen], "answer_mask": answers.mask[chosen]})


def test_the_loss_weighs_answers_and_counts_questions() -> None:
    torch.manual_seed(0)
    task = VQA(config_of(), "exact").eval()
    batch = train_batch(classes=False)
    loss = task({"train": batch})["train/answer"]
    decoder, memory = task.answering.answer_decoder(), memory_of(task.answering, batch)
    expected = 0.0
    for row, (owner, weight) in enumerate(zip(batch["answer_owner"], batch["answer_weights"], strict=True)):
        text = batch["answer_ids"][row][batch["answer_mask"][row]][None]
        logits = decoder.logits(decoder(text, None, memory.of(owner[None])))[0, :-1]
        expected += float((weight * torch.nn.functional.cross_entropy(logits, text[0, 1:], reduction="sum")).detach())
    assert float(loss.detach()) == pytest.approx(expected / 3, rel=1e-5)


def test_classes_leave_out_answers_that_are_none() -> None:
    task = VQA(config_of(), "exact", classes=8).eval()
    batch = train_batch(classes=True)
    logits = task.answering.class_logits(batch["image"], batch["text_ids"], batch["text_mask"]).log_softmax(dim=1)
    expected = -(0.7 * logits[0, 0] + 0.3 * logits[0, 3] + 0.5 * logits[2, 6]) / 2  # the second question has no class
    torch.testing.assert_close(task({"train": batch})["train/answer"], expected)
    assert int(task.row_counts({"train": batch})["train/answer"]) == 2
    none = batch | {"answer_labels": torch.full((4,), -100)}
    loss = task({"train": none})["train/answer"]
    loss.backward()
    assert loss.item() == 0.0
    answered = Classification()(task.answering, batch["image"], batch["text_ids"], batch["text_mask"])
    assert answered.index is not None
    assert answered.index.tolist() == logits.argmax(dim=1).tolist()


def test_every_parameter_gets_a_gradient() -> None:
    for classes in (None, 8):
        task = VQA(config_of(), "exact", classes)
        task({"train": train_batch(classes is not None)})["train/answer"].backward()
        assert [name for name, parameter in task.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize(("layers", "expected"), [(None, [0, 1]), (1, [1])])
def test_a_decoder_starts_from_the_fusion_layers_and_the_text_encoder(layers: int | None, expected: list[int], tmp_path) -> None:
    torch.manual_seed(1)
    config = config_of()
    source = VisionLanguageModel(config, ("mlm",))
    for parameter in source.parameters():
        torch.nn.init.normal_(parameter)
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    model = AnsweringModel(config.model_copy(update={"decoder": DecoderConfig(layers=layers)}))
    coverage = load_checkpoint(model, tmp_path / "model.safetensors")
    assert coverage.new == ()
    decoder = model.answer_decoder()
    for own, other in enumerate(expected):
        layer = source.fusion.blocks()[other]
        for name, tensor in decoder.blocks()[own].state_dict().items():
            assert torch.equal(tensor, layer.state_dict()[name]), name
    assert torch.equal(decoder.embeddings.words.weight, source.text.embedding_weight)
    assert torch.equal(decoder.head.dense.weight, source.mlm_head.dense.weight)


def test_a_head_for_other_answers_starts_fresh(tmp_path) -> None:
    save_file(model_of(classes=5).state_dict(), tmp_path / "model.safetensors")
    same, other = (load_checkpoint(model_of(classes=classes), tmp_path / "model.safetensors", ["cls_head*"]) for classes in (5, 7))
    assert same.new == ()
    assert {name.split(".")[0] for name in other.new} == {"cls_head"}


def test_layers_of_the_decoder_are_among_the_blocks_that_are_recomputed_or_compiled() -> None:
    model = model_of()
    assert list(model.stacks()[-1]) == model.answer_decoder().blocks()
    assert len(model_of(classes=5).stacks()) == len(model.stacks()) - 1
