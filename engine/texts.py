"""The tokenizer of a run, and how long its texts may become."""

from transformers import PreTrainedTokenizerBase

from dataset.concept_tokenizer import with_phrases
from dataset.tokenizers import load_tokenizer
from engine.config.concepts import check_vocabulary
from engine.config.schema import ConceptTaskConfig, RunConfig


def tokenizer_of(config: RunConfig) -> PreTrainedTokenizerBase:
    """What makes token ids of the texts of a run; in a task of MVP those of their phrases as well.

    Raises:
        UserError: the tokenizer or the vocabulary of phrases cannot be read, or is larger than the model's table.
    """
    settings = config.tokenizer
    tokenizer = load_tokenizer(settings.path, settings.ends_with_separator)
    if not isinstance(config, ConceptTaskConfig) or config.concepts is None:
        return tokenizer
    check_vocabulary(config, config.concepts.phrases.vocabulary)
    return with_phrases(tokenizer, config.concepts.phrases, settings.max_tokens)


def longest_text(config: RunConfig) -> int:
    """Most positions of a text of a task, with its phrases where they are read."""
    concepts = config.concepts if isinstance(config, ConceptTaskConfig) else None
    return config.tokenizer.max_tokens + (0 if concepts is None else concepts.phrases.reserve)
