"""Where work runs: jobs in workers, within limits, journalled so that a run can go on. `begin` opens a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from headstart.core import Budget

if TYPE_CHECKING:
    from .run import Run


@contextmanager
def begin(
    out: Path,
    budget: Budget,
    *,
    inputs: Mapping[str, Any],
    resume: bool = False,
    executor: Literal["workers", "in_process"] = "workers",
    started: float | None = None,
    show: Literal["auto", "plain", "none"] = "auto",
    hook: Callable[[str], None] | None = None,
    jobs: str = "headstart.execution.jobs",
) -> Iterator[Run]:
    """A run in `<out>/run/`, for as long as a `with` lasts; `execution.run` says how to use it.

    inputs: JSON values that the run rests on: fingerprints of data and shelf, settings, version; not the minutes. With
    resume, a change in one of them is `Refused` by name. started: `time.monotonic()` when the clock began, now if None.
    hook: called at every journal and write event. jobs: name of the module whose `run(job, room)` does the work.
    """
    from .run import Run

    run = Run.open(
        out, budget, inputs=inputs, resume=resume, executor=executor, started=started, show=show, hook=hook, jobs=jobs
    )
    with run:
        yield run
