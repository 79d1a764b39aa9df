"""The meter owns the clock: the deadline, what each stage took, and what is left of every limit of a `Budget`.

Only this file and the executors read the clock. Without a time limit nothing that is decided depends on it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path

import psutil

from headstart.core import Budget, OverBudget

TOLERANCE, TOLERANCE_SECONDS = 0.1, 5.0  # by which a run may pass its limit, whichever is longer
LEAST_SECONDS = 30.0  # without the cheapest system there is no result at all, so it may take that long on any machine
MEMORY_SHARE = 0.9  # of the machine's memory, where the budget names no limit


def cores() -> int:
    """Cores this process may use, and no more than `OMP_NUM_THREADS` where that is set."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(found, int(asked)) if asked.isdigit() and int(asked) > 0 else found


def machine_memory() -> float:
    """Bytes of the machine, or of the container where that has a limit."""
    total = float(psutil.virtual_memory().total)
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.exists() else ""
    return min(total, float(text)) if text.isdigit() else total


class Meter:
    """What is spent and what is left.

    started: `time.monotonic()` when the clock began. earlier: seconds that earlier sessions of this run took.
    bound: whether the time limit has cut or refused anything so far. forecasts: seconds that stages were expected to
    take.
    """

    def __init__(self, budget: Budget, *, started: float | None = None, earlier: float = 0.0) -> None:
        self.budget = budget
        self.started = time.monotonic() if started is None else started
        self.earlier = earlier
        self.reserve = 0.0
        self.bound = False
        self.memory = float(budget.memory) if float(budget.memory) < inf else MEMORY_SHARE * machine_memory()
        self.disk_spent = 0.0
        self.spent_by_stage: dict[str, float] = {}
        self.forecasts: dict[str, float] = {}
        self._trials: set[str] = set()

    def session(self) -> float:
        """Seconds of this session."""
        return time.monotonic() - self.started

    def spent(self) -> float:
        """Seconds of all sessions of this run."""
        return self.earlier + self.session()

    def remaining(self) -> float:
        """Seconds until the deadline, less the reserve; infinite without a time limit, never below 0."""
        return inf if self.budget.seconds == inf else max(0.0, self.budget.seconds - self.spent() - self.reserve)

    def left(self) -> float:
        """`remaining`, for one who will act on it: nothing left means that the time limit is binding."""
        left = self.remaining()
        self.bound = self.bound or left == 0
        return left

    def remaining_for_all(self) -> float:
        """Seconds for work that a valid result needs: to the end of the tolerance, and in any case a few."""
        if self.budget.seconds == inf:
            return inf
        tolerance = max(TOLERANCE * self.budget.seconds, TOLERANCE_SECONDS)
        return max(LEAST_SECONDS, self.budget.seconds + tolerance - self.spent())

    def keep(self, seconds: float) -> None:
        """Hold back so many seconds for what must come at the end; 0 gives them free."""
        self.reserve = seconds

    @property
    def trials_left(self) -> float:
        """How many new trials of routes may start; infinite without a limit."""
        return inf if self.budget.trials is None else self.budget.trials - len(self._trials)

    def start_trial(self, trial: str) -> bool:
        """Count a trial that starts, or goes on at a later rung; False where no new one may start."""
        if trial not in self._trials and self.trials_left < 1:
            return False
        self._trials.add(trial)
        return True

    def spend_disk(self, size: float, *, step: str) -> None:
        """Charge bytes written (or give them back, below 0). Raises `OverBudget` when the limit is passed."""
        self.disk_spent += size
        if size > 0 and self.disk_spent > float(self.budget.disk):
            raise OverBudget(
                f"{self.disk_spent:.3g} bytes are written, and {float(self.budget.disk):.3g} may be",
                where=f"the budget of `{step}`",
                fix="raise the limit with `--disk`, or leave sources out",
            )

    def charge(self, stage: str, seconds: float) -> None:
        self.spent_by_stage[stage] = self.spent_by_stage.get(stage, 0.0) + seconds

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Charge the time of a `with` to a stage: for what the parent itself does."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self.charge(stage, time.monotonic() - begun)
