"""Shards with captions to shards with concepts: phrases of each caption, and tags of each image.

OUT/shards/concepts-*.tar    the records, with `phrases` and, where asked for, `tags`
OUT/phrases.json             the vocabulary of phrases
OUT/meta.json                request, counts, SHA-256 of each file
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import BadRecord, UserError
from dataset.phrases import Backend, Phrase, PhraseVocabulary, phrases_of
from dataset.prepare.output import PreparedFolder
from dataset.prepare.pack import KEPT_FORMATS, write_bad_records
from dataset.records import Record, open_source
from dataset.shards import ShardWriter
from dataset.streams.concepts import tags_of
from dataset.text import caption_texts
from dataset.tokenizers import load_tokenizer

VERSION = 1  # raise it when the same input comes to give other output
ENTRIES = ("shards", "phrases.json")

Tagger = Callable[[bytes], list[str]]
"""What an encoded image shows, most certain first. It is given nothing else, so that no caption can leak into tags."""


@dataclass(frozen=True)
class PhraseRequest:
    """What to prepare.

    Attributes:
        shards: patterns of the records.
        out: the folder.
        tokenizer: folder of the tokenizer, for words that share their row with a phrase.
        min_count: so many captions must hold a phrase.
        max_size: most phrases; None: no bound.
        backend: what reads phrases.
        tags: where tags come from: keep (as stored), elements, none, or a name for what the tagger is.
        tagger: for tags that are none of the first three.
        max_samples: samples a shard.
        max_bad: share of records that may be bad.
        overwrite: whether to replace what another request wrote.
    """

    shards: tuple[str, ...]
    out: Path
    tokenizer: Path
    min_count: int = 50
    max_size: int | None = None
    backend: Backend = "rule"
    tags: str = "elements"
    tagger: Tagger | None = None
    max_samples: int = 1000
    max_bad: float = 0.01
    overwrite: bool = False


def prepare_phrases(request: PhraseRequest, progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Write the folder, or do nothing where it already is; returns what meta.json holds.

    Raises:
        UserError: shards or tokenizer cannot be read, too many records are bad, or no phrase is frequent enough.
    """
    source, output = open_source(request.shards), PreparedFolder(request.out, ENTRIES)
    names = ("tokenizer", "min_count", "max_size", "backend", "tags", "max_samples")
    asked = {"layout": "phrases", "version": VERSION, "shards": list(request.shards), "records": len(source)}
    asked |= {name: str(value) if isinstance(value := getattr(request, name), Path) else value for name in names}
    if (meta := output.completed(asked)) is not None:
        return meta
    output.check_free(request.overwrite)
    tokenizer = load_tokenizer(request.tokenizer)
    sentences: list[list[tuple[str, ...]]] = []
    bad: list[str] = []
    counts = {"records": len(source), "captions": 0, "phrases": 0, "tags": 0}
    with output as folder:
        with ShardWriter(folder / "shards", "concepts", request.max_samples) as shard:
            for index in range(len(source)):
                try:
                    record = source[index]
                    annotation, found = with_concepts(record, request)
                except BadRecord as error:
                    bad.append(str(error))
                    continue
                sentences += [[phrase.parts for phrase in phrases] for phrases in found]
                counts["tags"] += len(annotation.get("tags", ()))
                image = record.image or b""
                extension = next((kind for start, kind in KEPT_FORMATS.items() if image.startswith(start)), "jpg")
                shard.write(record.key, image, annotation, extension)
                if progress is not None:
                    progress(index + 1, len(source))
        write_bad_records(request.out / "bad_records.txt", bad, len(source), request.max_bad)
        vocabulary = PhraseVocabulary.build(sentences, tokenizer, request.min_count, request.max_size)
        if not len(vocabulary):
            raise UserError(f"none of the phrases of {len(sentences):,} captions occurs {request.min_count} times; lower --min_count")
        vocabulary.save(folder / "phrases.json")
        counts |= {"captions": len(sentences), "phrases": sum(map(len, sentences))}
        counts |= {"vocabulary_phrases": len(vocabulary), "embedding_rows": max(vocabulary.rows, len(tokenizer))}
        return output.finish({"request": asked, "counts": counts})


def with_concepts(record: Record, request: PhraseRequest) -> tuple[dict[str, Any], list[list[Phrase]]]:
    """A record's annotation with phrases and tags, and the phrases of each caption. Raises BadRecord."""
    captions = caption_texts(record.annotation.get("caption"))
    if not captions:
        raise BadRecord(f"{record.key}: there is no caption")
    found = [phrases_of(caption, request.backend) for caption in captions]
    stored = [[[list(phrase.parts), list(phrase.words)] for phrase in phrases] for phrases in found]
    annotation = {**record.annotation, "caption": captions, "phrases": stored}
    if request.tagger is not None:
        if record.image is None:
            raise BadRecord(f"{record.key}: there is no image")
        annotation["tags"] = request.tagger(record.image)
    elif request.tags != "keep":
        annotation["tags"] = list(tags_of(record.annotation, request.tags))
    return annotation, found
