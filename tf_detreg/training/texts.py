"""Text embeddings of the classes for language guidance, by the name of their source."""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tf_detreg import checks

if TYPE_CHECKING:
    from tf_detreg.regularizers import SentenceEncoder


SOURCES = ("class names", "character trigrams")


def embeddings(source: str, names: Sequence[str]) -> np.ndarray:
    """Return one text embedding a class, as `regularizers.LanguageGuidance` takes them.

    Args:
        source: `"class names"`: the sentence encoder on "a photo of a NAME", as in a run's configuration;
            `"character trigrams"`: how the names are spelt, a control that knows no meaning and needs no package.
        names: Of the classes.

    Returns:
        float32 `(C, e)`.

    Raises:
        ValueError: For another source.
        ImportError: For `"class names"`, where no sentence encoder is installed.

    Example:

    >>> embeddings("character trigrams", ["red cat", "red car"]).shape
    (2, 9)
    """
    from tf_detreg import regularizers

    if source == "class names":
        return _sentences(tuple(names))
    if source == "character trigrams":
        return regularizers.embed_names(names, character_trigrams, template="{}")
    raise checks.invalid("source", f"be {checks.listed(SOURCES)}", checks.shown(source))


def character_trigrams(texts: Sequence[str]) -> np.ndarray:
    """Count how often each run of three characters that any of the texts has occurs in each text, `(n, e)`.

    A space is put at both ends, so that the ends of words count and a text of one character has a trigram.
    """
    grams = [[f" {text} "[i : i + 3] for i in range(max(1, len(text)))] for text in texts]
    column = {gram: number for number, gram in enumerate(sorted({gram for row in grams for gram in row}))}
    counts = np.zeros((len(texts), len(column)), "float32")
    for row, found in enumerate(grams):
        np.add.at(counts[row], [column[gram] for gram in found], 1)
    return counts


@functools.lru_cache(maxsize=8)
def _sentences(names: tuple[str, ...]) -> np.ndarray:
    """Return the encoded names, kept, since encoding them takes as long as a short training."""
    from tf_detreg import regularizers

    return regularizers.embed_names(names, sentence_encoder())


def sentence_encoder() -> "SentenceEncoder":
    """Return the installed sentence encoder."""
    from tf_detreg.regularizers import SentenceEncoder

    return SentenceEncoder()
