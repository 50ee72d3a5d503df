"""Answers to held-out questions."""

import logging
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from torch.utils.data import DataLoader, Subset

from common.errors import UserError
from dataset.tasks.vqa import VqaBatch, VqaSet, answer_tokens, collate_vqa
from dataset.tasks.vqa_files import Question, read_answers
from engine.config.vqa import VqaConfig, VqaEvaluation
from engine.evaluators.base import Inputs, share_of, spread
from evaluation.report import AnswerPanel, ReportPanels
from evaluation.vqa import commonest, vqa_accuracy, vqa_metrics, write_submission
from models.generation import BeamSettings
from models.tasks.vqa import Answerer, AnswerList, Answers, Choosing, Classification, Generation, Ranking
from models.vlm import VisionLanguageModel

logger = logging.getLogger(__name__)

Predicted = tuple[str, float]
"""An answer and its confidence."""


class VqaEvaluator:
    """Answers every question of a file.

    Args:
        split: validation, test or test/NAME; its questions may have no answers.
        config: of the run.
        inputs: how images and texts become a model's inputs.
        guess: the answer to compare with, that of somebody who does not look; None for no such comparison.
    """

    def __init__(self, split: str, config: VqaConfig, inputs: Inputs, guess: str | None = None) -> None:
        self.config, self.inputs, self.guess = config, inputs, guess
        self.data = VqaSet(split, config.data, inputs.image_size, config.model.vision.frames)
        self.answers = read_answers(Path(config.data.answers)) if config.data.answers is not None else []
        self.answerer = answerer_of(config.evaluation, self.answers, inputs)
        self.predicted: list[Predicted] = []

    def __call__(self, model: VisionLanguageModel) -> dict[str, float]:
        """Accuracy in percent; nothing where the answers are kept secret."""
        own: list[Predicted] = []
        for batch in self.inputs.stoppable(self._loader(list(share_of(len(self.data))))):
            own += self._answer(model, batch)
        self.predicted = [found for share in self.inputs.interruption.gather(own) for found in share]
        return self._metrics([answer for answer, _ in self.predicted]) if self.data.answered else {}

    def baselines(self) -> dict[str, dict[str, float]]:
        """The commonest answer of training, to every question."""
        if self.guess is None or not self.data.answered:
            return {}
        return {"majority answer": self._metrics([self.guess] * len(self.data))}

    def panels(self, model: VisionLanguageModel, samples: int) -> ReportPanels:
        """Questions spread over the set."""
        assert len(self.predicted) == len(self.data), "evaluation, which needs all ranks, comes first"
        chosen = spread(range(len(self.data)), samples)
        return ReportPanels(answers=[self._panel(index) for index in chosen])

    def write(self, path: Path) -> None:
        """Write the answers of the last evaluation as EvalAI takes them."""
        pairs = zip(self.data.questions, self.predicted, strict=True)
        answers = [(question.question_id, answer) for question, (answer, _) in pairs]
        write_submission(path, answers, [question.question_id for question in self.data.questions])

    def _metrics(self, answers: list[str]) -> dict[str, float]:
        questions = self.data.questions
        return vqa_metrics(answers, [question.answers for question in questions], [question.answer_type for question in questions])

    def _panel(self, index: int) -> AnswerPanel:
        item, (answer, confidence) = self.data[index], self.predicted[index]
        image, given = item["image"], item["question"].answers
        shown = image[len(image) // 2] if image.dim() == 4 else image  # of a clip the middle frame
        known = {"given": commonest(given), "score": vqa_accuracy(answer, given)} if given else {}
        return AnswerPanel(shown.permute(1, 2, 0).numpy(), item["question"].text, answer, confidence, **known)

    def _loader(self, indices: list[int]) -> DataLoader[VqaBatch]:
        collate = partial(collate_vqa, tokenizer=self.inputs.tokenizer, max_tokens=self.inputs.max_tokens)
        size = self.config.evaluation.batch_size
        return DataLoader(Subset(self.data, indices), batch_size=size, collate_fn=collate)  # pyright: ignore[reportReturnType]

    def _answer(self, model: VisionLanguageModel, batch: VqaBatch) -> list[Predicted]:
        assert isinstance(model, Choosing), "the model of this task"
        device = self.inputs.device
        found = self.answerer(model, batch["image"].to(device), batch["text_ids"].to(device), batch["text_mask"].to(device))
        return list(zip(self._texts(found), found.confidence.float().cpu().tolist(), strict=True))

    def _texts(self, found: Answers) -> list[str]:
        if found.index is not None:
            return [self.answers[number] for number in found.index.tolist()]
        assert found.tokens is not None, "answers are numbers or tokens"
        return [text.strip() for text in self.inputs.tokenizer.batch_decode(found.tokens.tolist(), skip_special_tokens=True)]


def answerer_of(settings: VqaEvaluation, answers: Sequence[str], inputs: Inputs) -> Answerer:
    """The way of answering that the settings name.

    Raises:
        UserError: the tokenizer has no token to start or end an answer with.
    """
    tokenizer = inputs.tokenizer
    match settings.mode:
        case "classify":
            return Classification()
        case "rank":
            listed = AnswerList(*answer_tokens(tokenizer, answers, inputs.max_tokens))
            _warn_of_equal_answers(answers, listed)
            return Ranking(listed, settings.top_k, settings.sees_padding)
        case "generate":
            start, end = tokenizer.cls_token_id, tokenizer.sep_token_id
            if not isinstance(start, int) or not isinstance(end, int):
                raise UserError("tokenizer.path: the tokenizer has no [CLS] or [SEP], between which answers are written.")
            return Generation(start, end, BeamSettings(settings.beams, settings.max_answer_tokens, settings.length_penalty))


def _warn_of_equal_answers(answers: Sequence[str], listed: AnswerList) -> None:
    """Answers of the same tokens, as of letters or digits that are not in the vocabulary, cannot be told apart by a decoder."""
    first: dict[tuple[int, ...], str] = {}
    pairs = [(first.setdefault(row, answer), answer) for answer, row in zip(answers, map(tuple, listed.ids.tolist()), strict=True)]
    equal = [(one, other) for one, other in pairs if one != other]
    if equal:
        text = 'data.answers: %d answers have the tokens of another one, first "%s" and "%s": the tokenizer has no words for them'
        logger.warning(text, len(equal), *equal[0])


def majority_answer(questions: Sequence[Question]) -> str:
    """The commonest answer of training, each question's own commonest counted once."""
    return Counter(max(question.weights, key=lambda answer: answer[1])[0] for question in questions).most_common(1)[0][0]
