"""Phrase concepts of captions: objects, objects with an attribute, and objects in a relation."""

from dataset.phrases.extract import BACKENDS, Backend, extract, phrases_of
from dataset.phrases.phrase import Phrase
from dataset.phrases.vocabulary import PhraseVocabulary

__all__ = ["BACKENDS", "Backend", "Phrase", "PhraseVocabulary", "extract", "phrases_of"]
