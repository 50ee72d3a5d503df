"""Records, texts and a small model of MVP, for tests."""

from pathlib import Path

from dataset.concept_text import ConceptTexts
from dataset.concepts import ConceptStream
from dataset.phrases import PhraseVocabulary, extract
from dataset.records import Record
from dataset.streams.concepts import Concepts
from fake_records import SENTENCES, Records, encoded, picture, small_tokenizer
from models.config import ModelConfig

MAX_TOKENS, RESERVE = 16, 4
MODEL = ModelConfig.model_validate(
    {
        "vision": {"image_size": 32, "patch_size": 8, "width": 16, "depth": 1, "heads": 2, "drop_path": 0.0, "positions": "absolute"},
        "text": {"width": 32, "layers": 1, "heads": 2, "intermediate": 64, "vocab_size": 150, "max_positions": 24, "dropout": 0.0},
        "fusion": {"layers": 2},
        "mvp": {"vision_layers": 1, "vocab_size": 250, "phrases": 60, "learning": {"grounding": "hard"}},
        "initializer_std": 0.1,
    }
)


def concept_texts(folder: Path) -> ConceptTexts:
    """Token sequences over a vocabulary of the phrases of `SENTENCES`."""
    tokenizer = small_tokenizer(folder)
    vocabulary = PhraseVocabulary.build([extract(text) for text in SENTENCES], tokenizer, min_count=1)
    return ConceptTexts(tokenizer, vocabulary, MAX_TOKENS, RESERVE, 8)


def concept_records() -> Records:
    """A picture a sentence, with boxes and tags."""
    elements = [{"bb": [4, 4, 20, 20], "caption": "circle"}, {"bb": [30, 10, 30, 30], "caption": "square"}]
    annotations = [{"caption": [text], "elems": elements, "tags": ["square", "circle", "square"]} for text in SENTENCES]
    return Records([Record(f"r{i}", encoded(picture(i)), annotation) for i, annotation in enumerate(annotations)])


def concept_stream(texts: ConceptTexts, **changes: object) -> Concepts:
    """The stream over these records."""
    settings = {"shards": "-", "batch_size": 4, "phrases": {"vocabulary": "-"}, "regions": {"grid": [2]}} | changes
    return Concepts("concepts", concept_records(), ConceptStream.model_validate(settings), texts, 32)
