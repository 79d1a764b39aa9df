"""Numbers of rows by which samples grow: the chunks of the feature cache end there, and the rungs of a race.

One list for both, so that no row goes through a model on which nobody is judged.
"""

from __future__ import annotations

from collections.abc import Iterator

FIRST = 128


def growing() -> Iterator[int]:
    """128, 192, 256, 384, …: the powers of two from 128 on, and half as many again of each; without end.

    >>> sizes = growing()
    >>> [next(sizes) for _ in range(7)]
    [128, 192, 256, 384, 512, 768, 1024]
    """
    size = FIRST
    while True:
        yield size
        yield size * 3 // 2
        size *= 2
