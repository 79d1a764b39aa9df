"""What a planned merge will cost: bytes from the plan, memory from the sizes of tiles, seconds from a sample.

A merge that reads rows first is rehearsed: it reads a few, and is then asked what that took.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.io.tensor_names import is_input

from .layouts import bytes_on_disk, largest, largest_part, storage
from .learned import ROWS, learned_from, needs_none
from .likeness import bytes_to_compare
from .merging import kind_of

if TYPE_CHECKING:
    from headstart.numerics.made import Made, Part

    from .entrants import Entrant
    from .live import TaskRows
    from .plans import Plan

WARM_ENTRIES = 1 << 12
SAMPLE_ENTRIES = 1 << 22
SAMPLE_BYTES = 1 << 25
COPIES_OF_PART = 2  # in memory while a part that stays apart is written; a third fits into what learning gave back
PATIENCE = 15.0  # seconds, after which no longer rehearsal is begun


@dataclass(frozen=True, slots=True)
class Forecast:
    """peak_bytes: of the whole process, weights in the disk's cache not among it.

    bytes_read, seconds: of the weights, in all passes after rows were read. step: seconds of a step of learning, of a
    row at which passes look, or of a trial of a search; None where nothing is learned. learning: seconds of all of it,
    None where the method does not say how long it learns.
    """

    bytes_read: int
    bytes_written: int
    peak_bytes: int
    seconds: float
    step: float | None = None
    learning: float | None = None


def forecast(
    plan: Plan, out: Path | None = None, threads: int | None = None, *, load: bool = False,
    tasks: Sequence[TaskRows] = (),
) -> Forecast:  # fmt: skip
    """Nothing is left on the disk: what is written to measure its speed has no name. load: with one model in memory.

    tasks: rows for a method that reads some; without them, what reading them costs is not in it. Of a model that is
    made of others, of all together; where they are not there yet, seconds are as for those that are.
    """
    from headstart.execution.meter import cores

    if plan.search is not None and tasks:
        return _tried(plan, tasks, _of_one(plan, out, threads, load))
    if plan.reads is not None and (tasks or needs_none(plan.reads)):
        return _rehearsed(plan, tasks, _of_one(plan, out, threads, load), threads or cores(), load)
    costs = [_of_one(one, out, threads, load) for one in (*(p for _, p in plan.before), plan)]
    known = [c.seconds / c.bytes_written for c in costs if c.seconds and c.bytes_written]
    seconds = [c.seconds or c.bytes_written * max(known, default=0.0) for c in costs]
    read, written = sum(c.bytes_read for c in costs), sum(c.bytes_written for c in costs)
    return Forecast(read, written, max(c.peak_bytes for c in costs), sum(seconds))


def held_in_choice(plan: Plan, entrants: Sequence[Entrant], threads: int | None = None) -> int:
    """Bytes that the choice of a merge holds at most: one model, the changes, and all that entrants keep of them.

    What a batch takes in a pass comes on top; that follows from the rows, and is looked at when they are read.
    """
    import psutil

    from headstart import catalogue
    from headstart.execution.meter import cores
    from headstart.numerics.made import FLOATS
    from headstart.numerics.stream import room_bytes

    from .live import HELD_BYTES

    count, merged = len(plan.models), [m for m in plan.made if m.method is not None and m.dtype in FLOATS]
    weights = 4 * sum(m.size for m in merged)
    layers = [m.shape for m in merged if len(m.shape) == 2 and not is_input(m.name)]
    squares = [8 * sum(shape[side] ** 2 for shape in layers) for side in (0, 1)]  # of inputs and of gradients, float64
    seen = {"squares": weights, **dict.fromkeys(("inputs", "merged_inputs", "gradients"), max(squares))}
    methods = [catalogue.make(e.kind, e.method, **e.settings) for e in entrants]
    asks = {tuple(m.asks) for e, m in zip(entrants, methods, strict=True) if e.kind == "combination.matching"}
    passes = sum(count * seen[a] for ask in asks for a in ask if a in seen)
    if any("inputs" in a for ask in asks for a in ask):  # matrices of every model and of all, and what takes them apart
        passes += (count + 5) * 8 * max((max(shape) ** 2 for shape in layers), default=0)
    learn = [
        m for e, m in zip(entrants, methods, strict=True) if e.kind in ("combination.learning", "combination.loops")
    ]
    gates = sum(count * weights for m in learn if "gradients" in m.needs.gives)  # of each entry at most
    backward = any("inputs" not in a for ask in asks for a in ask)
    alone = weights if learn or backward else 0  # a gradient, or what is learned
    step = 4 * (count + 1) * weights if gates else alone  # a gradient and what Adam keeps, beside what is learned
    changes = min((1 + count) * weights, HELD_BYTES + (1 + count) * max((4 * m.size for m in merged), default=0))
    room = room_bytes(plan.made, threads or cores())
    return int(psutil.Process().memory_info().rss) + 3 * weights + changes + passes + gates + step + room


def _rehearsed(plan: Plan, tasks: Sequence[TaskRows], weights: Forecast, threads: int, load: bool) -> Forecast:
    """With what a little of the learning took, and what is kept apart of the merged body.

    Memory is that of two steps on the heaviest rows, as the second is taken beside what the first left, and of writing
    what they made; time is that of steps as they come.
    """
    from .rehearsal import Heaviest

    own: int | None = getattr(plan.reads, "steps", getattr(plan.reads, "trials", None))
    most = _rows(plan, tasks) if kind_of(plan.reads) == "combination.matching" else own
    began = time.perf_counter()
    made = learned_from(plan, tasks, steps=2, kind=Heaviest)  # has all that is done once
    first = time.perf_counter() - began
    peak, apart = max(weights.peak_bytes, _peak_so_far(), _peak(made, threads, load)), sum(storage(made).values())
    del made
    once = _timed(plan, tasks, 1)
    count, spent, began = 1, once, time.perf_counter()
    while spent < 1.3 * once and count < (most or 1) and time.perf_counter() - began < PATIENCE:
        count = min(8 * count, most or 1)
        spent = _timed(plan, tasks, count)
    step = max(0.0, spent - once) / (count - 1) if count > 1 else once
    return dataclasses.replace(
        weights,
        bytes_written=weights.bytes_written + apart,
        peak_bytes=peak,
        step=step,
        learning=None if most is None else first + max(0, most - 1) * step,
    )


def _tried(plan: Plan, tasks: Sequence[TaskRows], weights: Forecast) -> Forecast:
    """With what a trial of the search took: the second, for the first has all that is done once."""
    from headstart.core import Budget
    from headstart.execution.meter import Meter

    from .searches import found

    spent = []
    for trials in (1, 1, 2):
        began = time.perf_counter()
        if found(plan, tasks, Meter(Budget(trials=trials))).learned["searched"]["stopped"]:
            raise KeyboardInterrupt
        spent.append(time.perf_counter() - began)
    step = max(0.0, spent[2] - spent[1])
    return dataclasses.replace(weights, peak_bytes=max(weights.peak_bytes, _peak_so_far()), step=step)


def _timed(plan: Plan, tasks: Sequence[TaskRows], count: int) -> float:
    """Seconds of so many steps or rows."""
    began = time.perf_counter()
    learned_from(plan, tasks, rows=count, steps=count)
    return time.perf_counter() - began


def _rows(plan: Plan, tasks: Sequence[TaskRows]) -> int:
    """The most at which passes look for one model."""
    own = [[t.inputs.num_rows for t in tasks if t.own in (None, m)] for m in range(len(plan.models))]
    return max(min(ROWS, int(sum(rows))) for rows in own)


def _peak_so_far() -> int:
    """Bytes that this process held at most."""
    import psutil

    status = Path("/proc/self/status")
    told = status.read_text().splitlines() if status.exists() else []
    known = [int(line.split()[1]) << 10 for line in told if line.startswith("VmHWM")]
    return known[0] if known else int(psutil.Process().memory_info().rss)


def _of_one(plan: Plan, out: Path | None, threads: int | None, load: bool) -> Forecast:
    from headstart.execution.meter import cores
    from headstart.io.atomic import twins
    from headstart.io.safetensors_files import WIDTHS
    from headstart.numerics.dry import bytes_read

    crew = threads or cores()
    place = next((p for p in (out.parents if out else ()) if p.is_dir()), None)
    how = twins(place) if plan.apart and place is not None else "link"
    read, written = bytes_read(plan.made, WIDTHS) + bytes_to_compare(plan), bytes_on_disk(plan, how)
    if not all(folder.is_made for folder in plan.folders):
        return Forecast(read, written, _peak(plan, crew, load), 0.0)
    _sampled(plan, crew, WARM_ENTRIES)  # all is imported and compiled, before memory and time are looked at
    peak = _peak(plan, crew, load)
    seconds = written * (_sampled(plan, crew, SAMPLE_ENTRIES) + _writing_a_byte(place))
    return Forecast(read, written, peak, seconds)


def _peak(plan: Plan, threads: int, load: bool) -> int:
    import psutil

    from headstart.numerics.stream import room_bytes

    needed = (room_bytes(plan.made, threads), COPIES_OF_PART * largest_part(plan), largest(plan) if load else 0)
    return int(psutil.Process().memory_info().rss) + max(needed)


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
