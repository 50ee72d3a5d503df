"""The options of `prepare_data.py phrases`, and what they ask for."""

from __future__ import annotations

import argparse
from pathlib import Path

from common.errors import UserError
from dataset.phrases import BACKENDS
from dataset.prepare.phrases import PhraseRequest, Tagger


def add_phrases(data_sets: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Declare the subcommand."""
    parser = data_sets.add_parser("phrases", help="add phrase concepts and tags to shards with captions, for MVP")
    parser.add_argument("--shards", nargs="+", required=True, help="shards or JSON-lines files; braces and wildcards are expanded")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--tokenizer", type=Path, required=True, help="tokenizer folder")
    parser.add_argument("--min_count", type=int, default=50, help="captions that must hold a phrase (default: %(default)s, as published)")
    parser.add_argument("--max_size", type=int, help="most phrases, the frequent ones first")
    parser.add_argument("--backend", choices=BACKENDS, default="rule", help="what reads phrases (default: %(default)s)")
    sources = ("keep", "elements", "classifier", "zero_shot", "none")
    parser.add_argument("--tags", choices=sources, default="elements", help="where tags come from (default: %(default)s)")
    parser.add_argument("--tagger", help="for classifier a timm model, for zero_shot the folder of a run with a contrastive objective")
    parser.add_argument("--tag_words", type=Path, help="a word a line: what zero_shot may choose, or the classes of a classifier")
    parser.add_argument("--top", type=int, default=10, help="tags that a model gives an image (default: %(default)s)")
    parser.add_argument("--max_samples", type=int, default=1000, help="samples a shard (default: %(default)s)")
    parser.add_argument("--max_bad", type=float, default=0.01, help="share of records that may be bad (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace what another request wrote to the output folder")
    return parser


def phrase_request(options: argparse.Namespace) -> PhraseRequest:
    """What the options ask for.

    Raises:
        UserError: a tagger is not named, or cannot be loaded.
    """
    names = ("out", "tokenizer", "min_count", "max_size", "backend", "max_samples", "max_bad", "overwrite")
    chosen = {name: getattr(options, name) for name in names}
    tagger = make_tagger(options)
    tags = options.tags if tagger is None else f"{options.tags} {options.tagger} {options.tag_words} {options.top}"
    return PhraseRequest(tuple(options.shards), tags=tags, tagger=tagger, **chosen)


def make_tagger(options: argparse.Namespace) -> Tagger | None:
    """The model that tags images, where one is asked for."""
    if options.tags not in ("classifier", "zero_shot"):
        return None
    from engine.tagging import ClassifierTagger, ZeroShotTagger  # here because other preparation needs no models

    if options.tagger is None:
        raise UserError(f"--tags {options.tags} needs --tagger")
    words = None
    if options.tag_words is not None:
        words = [line.strip() for line in options.tag_words.read_text(encoding="utf-8").splitlines() if line.strip()]
    if options.tags == "classifier":
        return ClassifierTagger(options.tagger, words, options.top)
    if not words:
        raise UserError("--tags zero_shot needs --tag_words, the words to choose among")
    return ZeroShotTagger(Path(options.tagger), words, options.top)
