"""The `tfidf` step: n-grams of words or characters, weighted by how rare they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from sklearn.feature_extraction.text import TfidfVectorizer

from headstart.core import Raw

from .artifacts import Array, Step
from .steps import Matrix

WORD = r"(?u)\b\w+\b"  # scikit-learn's own drops words of one letter, and digits with them


def fit_tfidf(
    texts: Sequence[str],
    *,
    unit: Literal["word", "char_wb"],
    lengths: tuple[int, int],
    most: int,
    least_texts: int = 1,
    characters: int = 20_000,
) -> Step:
    """The `most` frequent n-grams of these texts and their inverse document frequencies.

    lengths: shortest and longest n-gram. least_texts: an n-gram in fewer texts is left out. characters: how much of
    each text is read.

    >>> fit_tfidf(["a b", "b"], unit="word", lengths=(1, 1), most=9).texts["terms"]
    '["a", "b"]'
    """
    settings = {"unit": unit, "lengths": list(lengths), "characters": characters}
    read = [t[:characters] for t in texts]
    terms, idf = _counted(settings, read, most, least_texts)
    if not terms and least_texts > 1:
        terms, idf = _counted(settings, read, most, 1)
    return Step(
        kind="tfidf", settings=settings, arrays={"idf": idf}, texts={"terms": json.dumps(terms, ensure_ascii=False)}
    )


def run_tfidf(step: Step, raw: Raw) -> Matrix:
    idf, characters = step.arrays["idf"], int(step.settings["characters"])
    if not len(idf) or not len(raw):
        return sp.csr_matrix((len(raw), len(idf)))
    made = _rebuilt(step.texts["terms"], idf.tobytes(), step.settings["unit"], tuple(step.settings["lengths"]))
    return made.transform([t[:characters] for t in raw.texts])


def _vectorizer(settings: dict[str, Any], **more: Any) -> TfidfVectorizer:
    return TfidfVectorizer(
        analyzer=settings["unit"],
        ngram_range=tuple(settings["lengths"]),
        token_pattern=WORD if settings["unit"] == "word" else None,
        sublinear_tf=True,
        dtype=np.float64,
        **more,
    )


def _counted(settings: dict[str, Any], texts: Sequence[str], most: int, least: int) -> tuple[list[str], Array]:
    """Terms and their inverse document frequencies; none where no n-gram is in enough texts."""
    made = _vectorizer(settings, max_features=most, min_df=least)
    try:
        made.fit(texts)
    except ValueError:  # scikit-learn's only word for an empty vocabulary; the texts are strings, the settings checked
        return [], np.zeros(0)
    return [str(t) for t in made.get_feature_names_out()], np.asarray(made.idf_, dtype=np.float64)


@lru_cache(maxsize=8)
def _rebuilt(terms: str, idf: bytes, unit: str, lengths: tuple[int, int]) -> TfidfVectorizer:
    made = _vectorizer({"unit": unit, "lengths": lengths}, vocabulary=json.loads(terms))
    made.idf_ = np.frombuffer(idf, dtype=np.float64)
    return made
