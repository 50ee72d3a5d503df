"""What `validate` checks of evaluations without training."""

from collections.abc import Iterator
from typing import Any

from engine.config.zero_shot import ZeroShotConfig
from engine.evaluators.zero_shot import zero_shot_question


def zero_shot_set(config: ZeroShotConfig) -> Iterator[str]:
    """Open the data and read its first and last image."""
    question = zero_shot_question(config)
    items: Any = question.items()
    for index in {0, len(items) - 1}:
        items[index]
    prompts = sum(len(prompts) for prompts in question.prompts)
    yield f"data: {len(items):,} images, {len(question.prompts):,} {config.data.kind} in {prompts:,} prompts"
