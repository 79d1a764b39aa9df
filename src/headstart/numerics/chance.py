"""Random numbers that belong to a place: the same for a tensor's entry whoever asks, in whatever order and pieces."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def uniforms(key: tuple[Any, ...], start: int, count: int) -> Array:
    """(count,) float64 in [0, 1): the numbers of places [start, start + count) of a key (Philox, a counter's cipher).

    >>> whole = uniforms((0, "layer.weight", 1), 0, 9)
    >>> bool((uniforms((0, "layer.weight", 1), 5, 4) == whole[5:]).all())
    True
    """
    digest = hashlib.sha256(repr(key).encode()).digest()
    counter = np.random.Philox(key=int.from_bytes(digest[:16], "little"))
    counter.advance(start // 4)  # a step of the counter makes four numbers
    return np.random.Generator(counter).random(start % 4 + count)[start % 4 :]
