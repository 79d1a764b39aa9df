"""The arithmetic that a race computes features in: the fastest that tells of a source what float32 tells.

Only the race uses it; what is reported of a source is computed in float32.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from headstart.core import Problem, Ranking, Rows, Target, Unfit

from .views import Dtype, Opener, Pool, RankView, first_rows

Array = np.ndarray[Any, Any]
PROBE_ROWS = 128
TOLERANCE = 0.01  # of the racing estimator's score, R², on these rows
GAIN = 2.0  # those that stay to the end are computed in float32 besides, so less would not pay
# seconds that the best of the others takes for all rows: the race reads about a third of them, and an export, which is
# kept, takes ten seconds or more
EXPORT_FROM = 120.0


class Taken(Pool):
    """A pool of features that are at hand."""

    def __init__(self, opener: Opener, rows: Rows, features: Array) -> None:
        super().__init__(opener, rows.ids, rows.inputs, None)
        self._features = features

    def take(self, ids: Sequence[str]) -> Array:
        assert len(ids) == len(self._features)
        return self._features


def fastest(opener: Opener, target: Target, rows: Rows, racer: Ranking) -> tuple[Dtype, dict[str, Any]]:
    """The arithmetic to use for a source, and what was measured: seconds and score by arithmetic, on one batch, and
    why others `failed`.

    rows: in the order of the draw. Where this processor has nothing faster, or rows are lists of words, nothing is
    measured. ONNX Runtime is tried where an export lies in the cache, or pays.
    """
    from headstart.io.backends import FAST, gain

    able = [dtype for dtype in FAST if gain(dtype) >= GAIN]
    exports = opener.opened.exports()
    if not (able or exports) or "tokens" in rows.inputs.column_names:
        return "float32", {}
    seen = first_rows(target, rows.take(range(min(PROBE_ROWS, len(rows)))))
    probed: dict[str, Any] = {"seconds": {}, "scores": {}, "failed": {}}
    try:
        for dtype in ("float32", *able):
            _probe(opener, seen, racer, dtype, probed)
        best = choice(probed["seconds"], probed["scores"])
        whole = probed["seconds"][best] * len(rows) / len(seen.labelled)
        if exports and (whole >= EXPORT_FROM or opener.opened.is_exported()):
            for dtype in exports:
                _probe(opener, seen, racer, dtype, probed)
    except Unfit:  # too few rows to tell
        return "float32", {}
    return choice(probed["seconds"], probed["scores"]), probed


def _probe(opener: Opener, seen: Target, racer: Ranking, dtype: Dtype, probed: dict[str, Any]) -> None:
    """Notes seconds and score of one arithmetic, or why it failed; float32 must not. One encoder is held at a time."""
    inputs = seen.labelled.inputs
    try:
        opener.opened.features(inputs.slice(0, 4), dtype=dtype)  # what is loaded and made at first use
        begun = time.perf_counter()
        features = opener.opened.features(inputs, dtype=dtype)
        probed["seconds"][dtype] = time.perf_counter() - begun
    except (RuntimeError, TypeError, AttributeError, ValueError, Problem) as error:
        if dtype == "float32":
            raise
        # an architecture that looks into its layers, and finds others there, or that cannot be exported
        probed["failed"][dtype] = error.what if isinstance(error, Problem) else str(error)[:200]
        return
    finally:
        opener.opened.release(dtype)
    view = RankView(seen, seen.labelled, Taken(opener, seen.labelled, features))
    probed["scores"][dtype] = racer(view.seen_by(racer.needs, "the probe of backends")).value


def choice(seconds: Mapping[Dtype, float], scores: Mapping[Dtype, float]) -> Dtype:
    """The fastest whose score is within the tolerance of float32's, where it is fast enough.

    >>> choice({"float32": 1.0, "bfloat16": 0.4, "int8": 0.2}, {"float32": 0.5, "bfloat16": 0.497, "int8": 0.45})
    'bfloat16'
    """
    true = [d for d in seconds if abs(scores[d] - scores["float32"]) <= TOLERANCE]
    best = min(true, key=lambda d: seconds[d])
    return best if seconds["float32"] >= GAIN * seconds[best] else "float32"
