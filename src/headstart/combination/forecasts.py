"""What a planned merge will cost: bytes from the plan, memory from the sizes of tiles, seconds from a sample."""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .layouts import bytes_on_disk, largest

if TYPE_CHECKING:
    from headstart.numerics.stream import Made, Part

    from .plans import Plan

WARM_ENTRIES = 1 << 12
SAMPLE_ENTRIES = 1 << 22
SAMPLE_BYTES = 1 << 25


@dataclass(frozen=True, slots=True)
class Forecast:
    """bytes_read: of all passes. peak_bytes: of the whole process, weights in the disk's cache not among it."""

    bytes_read: int
    bytes_written: int
    peak_bytes: int
    seconds: float


def forecast(plan: Plan, out: Path | None = None, threads: int | None = None, *, load: bool = False) -> Forecast:
    """Nothing is left on the disk: what is written to measure its speed has no name. load: with one model in memory.

    Of a model that is made of others, of all together; where they are not there yet, seconds are as for those that are.
    """
    costs = [_of_one(one, out, threads, load) for one in (*(p for _, p in plan.before), plan)]
    known = [c.seconds / c.bytes_written for c in costs if c.seconds and c.bytes_written]
    seconds = [c.seconds or c.bytes_written * max(known, default=0.0) for c in costs]
    read, written = sum(c.bytes_read for c in costs), sum(c.bytes_written for c in costs)
    return Forecast(read, written, max(c.peak_bytes for c in costs), sum(seconds))


def _of_one(plan: Plan, out: Path | None, threads: int | None, load: bool) -> Forecast:
    from headstart.execution.meter import cores
    from headstart.io.atomic import twins
    from headstart.io.safetensors_files import WIDTHS
    from headstart.numerics.dry import bytes_read

    crew = threads or cores()
    place = next((p for p in (out.parents if out else ()) if p.is_dir()), None)
    how = twins(place) if plan.apart and place is not None else "link"
    read, written = bytes_read(plan.made, WIDTHS), bytes_on_disk(plan, how)
    if not all(e.file.is_file() for f in plan.folders for e in f.tensors.values()):  # it is made first
        return Forecast(read, written, _peak(plan, crew, load), 0.0)
    _sampled(plan, crew, WARM_ENTRIES)  # all is imported and compiled, before memory and time are looked at
    peak = _peak(plan, crew, load)
    seconds = written * (_sampled(plan, crew, SAMPLE_ENTRIES) + _writing_a_byte(place))
    return Forecast(read, written, peak, seconds)


def _peak(plan: Plan, threads: int, load: bool) -> int:
    import psutil

    from headstart.numerics.stream import room_bytes

    room = room_bytes(plan.made, threads)
    return int(psutil.Process().memory_info().rss) + max(room, largest(plan) if load else 0)


def _sampled(plan: Plan, threads: int, entries: int) -> float:
    """Seconds for a byte of the result, read and combined: measured on first rows of the largest tensors."""
    from headstart.io.adapted import reader
    from headstart.numerics import stream

    pieces = _pieces([m for m in plan.made if m.method is not None and m.size], entries)
    if not pieces:
        return 0.0
    with ExitStack() as stack:
        readers = [stack.enter_context(reader(f)) for f in plan.folders]
        began = time.perf_counter()
        stream.run(pieces, readers, _Nowhere(), seed=plan.seed, threads=threads)
        spent = time.perf_counter() - began
    return spent / sum(m.bytes for m in pieces)


def _pieces(made: list[Made], entries: int) -> list[Made]:
    """First rows of the largest tensors."""
    left, out = entries, []
    for one in sorted(made, key=lambda m: (-m.size, m.name)):
        if left <= 0:
            break
        row = prod(one.shape[1:]) if one.shape else 1
        rows = min(one.shape[0], max(1, left // row)) if one.shape else 1
        parts = [_first(p, one.shape, rows) for p in (one.base, *one.tuned)]
        tuned = tuple(p for p in parts[1:] if p is not None)
        shape = (rows, *one.shape[1:]) if one.shape else ()
        out.append(dataclasses.replace(one, shape=shape, base=parts[0], tuned=tuned))
        left -= rows * row
    return out


def _first(part: Part | None, shape: tuple[int, ...], rows: int) -> Part | None:
    """The part of as many first rows, where its rows are those of the tensor's first axis."""
    if part is None or part.rows is None or len(part.rows) != shape[0]:
        return part
    owners = tuple(p for o in part.owners if (p := _first(o, shape, rows)) is not None)
    return dataclasses.replace(part, rows=part.rows[:rows], owners=owners)


def _writing_a_byte(place: Path | None) -> float:
    if place is None or not os.access(place, os.W_OK):
        return 0.0
    with tempfile.TemporaryFile(dir=place) as file:
        began = time.perf_counter()
        file.write(bytes(SAMPLE_BYTES))
        file.flush()
        os.fsync(file.fileno())
        return (time.perf_counter() - began) / SAMPLE_BYTES


class _Nowhere:
    def write(self, name: str, start: int, data: Any) -> None:
        """What is measured is all before this."""

    def finish(self, name: str, size: int) -> None:
        """Nothing was kept."""
