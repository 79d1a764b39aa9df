"""Memory for one tile's in-between results, one block for each thread, used again for every tile.

Fresh memory of a tile's size comes from the system page by page, and goes back to it, which costs as much as the
arithmetic and holds up the other threads. Within a `with tile():` what `empty` gives is valid until the block ends;
outside it is ordinary memory.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
ALIGNED = 64  # bytes


class _Block(threading.local):
    """room: None outside a tile; wanted: what the tiles so far would have liked to have."""

    def __init__(self) -> None:
        self.room: Array | None = None
        self.kept = np.empty(0, np.uint8)
        self.used = self.wanted = 0


_block = _Block()


@contextmanager
def tile() -> Iterator[None]:
    """What is taken within is taken from the thread's block, which grows to what tiles want."""
    if len(_block.kept) < _block.wanted:
        _block.kept = np.empty(_block.wanted, np.uint8)
    _block.room, _block.used, _block.wanted = _block.kept, 0, 0
    try:
        yield
    finally:
        _block.room = None


def empty(count: int, dtype: Any) -> Array:
    """(count,) numbers of any value.

    >>> with tile():
    ...     len(empty(3, np.float32))
    3
    """
    kind = np.dtype(dtype)
    if _block.room is None:
        return np.empty(count, kind)
    size = -(-count * kind.itemsize // ALIGNED) * ALIGNED
    _block.wanted += size
    if _block.used + size > len(_block.room):
        return np.empty(count, kind)
    start, _block.used = _block.used, _block.used + size
    return _block.room[start : start + count * kind.itemsize].view(kind)
