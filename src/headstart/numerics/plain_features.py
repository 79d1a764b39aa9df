"""Features without a model: enough to tell which data sets are of one kind."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.extmath import randomized_svd

from headstart.core import Raw

from .steps import features
from .steps_image import hog, pixels
from .steps_table import fit_columns
from .steps_text import fit_tfidf

Array = np.ndarray[Any, Any]

WIDTH = 64  # principal directions that are kept
TERMS = 20_000
PLAIN_EMBEDDING = {
    "text": f"{WIDTH} directions of TF-IDF words",
    "image": f"{WIDTH} directions of pixels and gradients",
    "table": "standardised columns",
}


def plain_features(raw: Raw, modality: str, seed: int = 0) -> Array:
    """(rows, at most 64) float32, fitted on these rows: what is to be compared is given together. A table keeps its
    columns.

    Texts: words and pairs of words by TF-IDF, then singular vectors. Images: pixels and histograms of gradients, then
    principal components.
    """
    if modality == "table":
        return np.asarray(features([fit_columns(raw.columns, filled=True)], raw), dtype=np.float32)
    if modality == "image":
        x = np.asarray(features([pixels(raw, 16), hog(32)], raw), dtype=np.float64)
        x -= x.mean(axis=0)
    else:
        x = features([fit_tfidf(raw.texts, unit="word", lengths=(1, 2), most=TERMS, least_texts=2)], raw)
    if not min(x.shape):
        return np.zeros((len(raw), 1), dtype=np.float32)
    left, size, _ = randomized_svd(x, min(WIDTH, *x.shape), random_state=seed)
    return np.asarray(left * size, dtype=np.float32)
