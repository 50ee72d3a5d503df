"""A phrase concept (MVP, arXiv 2201.12596, section 3.1)."""

from typing import NamedTuple


class Phrase(NamedTuple):
    """(object), (object, attribute) or (subject, relation, object), all base forms."""

    parts: tuple[str, ...]
    words: tuple[int, ...]
    """Numbers of the words of the text that it was read from, in the order of the parts."""
