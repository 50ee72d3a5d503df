"""Words of a caption, their classes and their base forms, by lists and rules."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dataset.phrases import lexicon

WORD = re.compile(r"[^\W_]+")
"""What counts as a word. Punctuation and apostrophes part words, as they do once a caption is normalised (`pre_caption`)."""
_PIECES = re.compile(r"[^\W_]+|[,.;:!?()\"]|'(?=s\b)")


@dataclass(frozen=True)
class Word:
    """One word, or a mark that ends a clause."""

    text: str
    """In lower case."""
    number: int
    """Which word of the text it is; -1 for a mark."""
    kind: str
    """det, pron, conj, break, aux, adv, num, prep, adj, verb, noun, own (possessive s), mark."""
    lemma: str


def words_of(text: str) -> list[str]:
    """The words of a text in lower case; what `Phrase.words` counts."""
    return WORD.findall(text.lower())


def tag(text: str) -> list[Word]:
    """Words and marks of a text with their classes; long prepositions ("in front of") are one word."""
    pieces = _PIECES.findall(text.lower())
    kinds: list[Word] = []
    number, place = 0, 0
    while place < len(pieces):
        piece = pieces[place]
        if not WORD.match(piece):
            kinds.append(Word(piece, -1, "mark", piece))
            place += 1
            continue
        length = _long_preposition(pieces, place)
        if length:
            joined = " ".join(pieces[place : place + length])
            kinds.append(Word(joined, number, "prep", joined))
        else:
            length = 1
            following = pieces[place + 1] if place + 1 < len(pieces) else ""
            kinds.append(_word(piece, number, kinds, following))
        number, place = number + length, place + length
    return [word for word in kinds if word.text != "'"]


def noun_lemma(noun: str) -> str:
    """The singular: "buses" -> "bus", "children" -> "child"."""
    if noun in lexicon.IRREGULAR_NOUNS:
        return lexicon.IRREGULAR_NOUNS[noun]
    if noun in lexicon.UNCHANGED or len(noun) < 4 or not noun.endswith("s") or noun.endswith(("ss", "us", "is")):
        return noun
    if noun.endswith("ies"):
        return f"{noun[:-3]}y"
    if noun.endswith(("ches", "shes", "xes", "sses", "zzes", "oes")):
        return noun[:-2]
    return noun[:-1]


def _long_preposition(pieces: list[str], place: int) -> int:
    for phrase in lexicon.LONG_PREPOSITIONS:
        if tuple(pieces[place : place + len(phrase)]) == phrase:
            return len(phrase)
    return 0


def _word(piece: str, number: int, before: list[Word], following: str) -> Word:
    kind = _closed(piece, before, following) or _open(piece, before, following)
    if kind == "verb":
        form = lexicon.VERBS.get(piece)
        return Word(piece, number, kind, form.lemma if form else _guessed_verb(piece))
    return Word(piece, number, kind, noun_lemma(piece) if kind == "noun" else piece)


def _closed(piece: str, before: list[Word], following: str) -> str | None:
    last = before[-1] if before else None
    if piece == "s" and last is not None and last.text == "'":
        return "own"
    if piece == "that" and last is not None and last.kind == "noun":
        return "pron"
    if piece in ("left", "right") and last is not None and last.kind == "det" and not _begins_noun(following):
        return "noun"
    if piece in lexicon.AUXILIARIES and not (piece == "can" and last is not None and last.kind in ("det", "adj")):
        return "aux"
    if piece in ("up", "down", "off", "around", "along", "inside", "outside", "underneath") and not _begins_noun_phrase(following):
        return "adv"
    for kind, known in (
        ("break", lexicon.BREAKS),
        ("prep", lexicon.PREPOSITIONS),
        ("conj", lexicon.CONJUNCTIONS),
        ("det", lexicon.DETERMINERS),
        ("pron", lexicon.PRONOUNS),
    ):
        if piece in known:
            return kind
    if piece in lexicon.NUMBERS or piece.isdigit():
        return "num"
    return None


def _open(piece: str, before: list[Word], following: str) -> str:
    last = next((word for word in reversed(before) if word.kind != "adv"), None)
    after_noun = last is not None and last.kind in ("noun", "pron", "aux", "conj")
    modifies = last is not None and last.kind in ("det", "adj", "num", "own", "prep", "verb") and _begins_noun(following)
    form = lexicon.VERBS.get(piece)
    if piece in lexicon.ADVERBS:
        return "noun" if last is not None and last.kind in ("det", "adj") and not _begins_noun(following) else "adv"
    if piece in lexicon.ALWAYS_NOUNS or (piece in lexicon.ING_NOUNS and (form is None or last is None or last.kind not in ("aux", "pron"))):
        return "noun"
    if piece.endswith("ed") and last is not None and last.kind in ("conj", "noun") and _begins_noun(following):
        return "adj"  # "a tree lined street"
    if piece in lexicon.NOUN_FORMS and last is not None and last.kind == "det" and not _begins_noun(following):
        return "noun"
    if form is not None and form.kind in ("ing", "past"):
        return "adj" if modifies and piece not in ("left",) else ("verb" if piece not in lexicon.ADJECTIVES or after_noun else "adj")
    if piece in lexicon.ADJECTIVES:
        return "adj"
    if form is not None:
        return "verb" if _acts(piece, form, last, following) else "noun"
    if piece.endswith("ing") and len(piece) > 5 and after_noun:
        return "verb"
    if piece.endswith("ed") and len(piece) > 4 and not piece.endswith("eed"):
        return "verb" if after_noun and not _begins_noun(following) else "adj"
    if piece.endswith("ly") and len(piece) > 4 and piece not in ("family", "butterfly", "jelly", "belly", "lily", "trolley", "assembly"):
        return "adv"
    if piece.endswith(("ous", "ful", "ish", "less")) and _begins_noun(following):
        return "adj"
    return "noun"


def _acts(piece: str, form: lexicon.VerbForm, last: Word | None, following: str) -> bool:
    """Whether a form that may be a noun ("ride", "walks") is a verb here."""
    if last is None or (last.kind not in ("noun", "pron", "aux") and last.text not in ("to", "and")):
        return False
    if last.text == "and" and piece in lexicon.NOUN_FORMS:
        return False
    if form.lemma in lexicon.NOUN_FORMS and last.text != "to":
        return any(following in group for group in (lexicon.DETERMINERS, lexicon.PREPOSITIONS, lexicon.ADVERBS, lexicon.BREAKS))
    return True


def _begins_noun(following: str) -> bool:
    """Whether a word may be a noun or stand before one, as far as it alone can tell."""
    return bool(following) and bool(WORD.match(following)) and not _is_function(following)


def _begins_noun_phrase(following: str) -> bool:
    return bool(following) and (following in lexicon.DETERMINERS or following in lexicon.NUMBERS or _begins_noun(following))


def _is_function(word: str) -> bool:
    form = lexicon.VERBS.get(word)
    acting = form is not None and form.kind == "ing" and word not in lexicon.ING_NOUNS
    groups = (
        lexicon.DETERMINERS,
        lexicon.PRONOUNS,
        lexicon.CONJUNCTIONS,
        lexicon.BREAKS,
        lexicon.AUXILIARIES,
        lexicon.PREPOSITIONS,
        lexicon.ADVERBS,
    )
    return acting or any(word in group for group in groups)


def _guessed_verb(piece: str) -> str:
    """The base form of a verb that is in no list."""
    stem = piece.removesuffix("ing") if piece.endswith("ing") else piece.removesuffix("ed")
    if len(stem) > 3 and stem[-1] == stem[-2] and stem[-1] not in "lsz":
        return stem[:-1]
    return stem
