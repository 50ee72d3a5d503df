"""What `validate` checks of question answering."""

from collections.abc import Iterator
from pathlib import Path

from dataset.tasks.vqa import VqaSet
from dataset.tasks.vqa_files import Question, read_answers
from engine.config.vqa import VqaConfig
from engine.evaluators.vqa import majority_answer


def vqa_sets(config: VqaConfig) -> Iterator[str]:
    """Open the evaluation sets and the list of answers, and read the first and last image of each set."""
    data, vision = config.data, config.model.vision
    found: dict[str, list[Question]] = {}
    for split in ("validation", *data.tests.values()):
        key = f"data.{split.replace('/', '.')}"
        if data.file_of(split) is None:
            yield f"{key}: none; the last weights are kept"
            continue
        held_out = VqaSet(split, data, vision.image_size, vision.frames)
        found[key] = held_out.questions
        for index in {0, len(held_out) - 1}:
            held_out[index]
        answers = "with answers" if held_out.answered else "without answers: predictions are written, nothing is scored"
        yield f"{key}: {len(held_out):,} questions {answers}"
    if data.answers is not None:
        yield from _answers(config, found)


def _answers(config: VqaConfig, found: dict[str, list[Question]]) -> Iterator[str]:
    """The list, and how many questions it can answer at all."""
    assert config.data.answers is not None, "the caller looks"
    listed = set(answers := read_answers(Path(config.data.answers)))
    yield f"data.answers: {len(answers):,} answers to {'choose from' if config.evaluation.mode == 'classify' else 'rank'}"
    for key, questions in found.items():
        known = [question for question in questions if question.weights]
        if known:
            reachable = sum(majority_answer([question]) in listed for question in known)
            yield f"{key}: the answer is in the list for {100 * reachable / len(known):.1f} % of the questions"
