"""Budget: hard limits that say no before, not after."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from math import inf
from typing import Any

from .errors import OverBudget, Unfit

UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def bytes_of(text: str | float, where: str = "the budget") -> float:
    """A size as people write it. where: it was written, for the error.

    >>> bytes_of("8 GB"), bytes_of("512MiB")
    (8000000000.0, 536870912.0)
    """
    if isinstance(text, (int, float)):
        return float(text)
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([a-z]*)\s*", text.lower())
    if not found or found[2] not in UNITS:
        raise Unfit(f"`{text}` is not a size", where=where, fix="write it like 8GB, 500MB or 2GiB")
    return float(found[1]) * UNITS[found[2]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """Limits; infinite where none is given.

    minutes: wall time from the call (from process start in the shell). memory, disk: bytes, or text like "8 GB".
    trials: how many trials may start; a limit without a clock, so that runs repeat bit for bit.
    labels: the most labelled rows used.
    """

    minutes: float = inf
    memory: str | float = inf
    disk: str | float = inf
    trials: int | None = None
    labels: int | None = None

    def __post_init__(self) -> None:
        for name in ("minutes", "trials", "labels"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise Unfit(f"{name} is {value}, and must be above 0", where="the budget", fix=f"give {name} above 0")
        object.__setattr__(self, "memory", bytes_of(self.memory))
        object.__setattr__(self, "disk", bytes_of(self.disk))

    @property
    def seconds(self) -> float:
        return self.minutes * 60

    def share(self, fraction: float) -> Budget:
        """The same limits with a fraction of the time."""
        return replace(self, minutes=self.minutes * fraction)

    def admit(self, *, step: str, **asked: float) -> None:
        """Raises `OverBudget` when a stated cost (seconds=, memory=, disk=) is above its limit."""
        for name, amount in asked.items():
            limit: Any = getattr(self, name)
            if amount > limit:
                unit = "s" if name == "seconds" else "B"
                raise OverBudget(
                    f"`{step}` needs about {amount:.3g} {unit} of {name}, and {limit:.3g} {unit} are left",
                    where=f"the budget of `{step}`",
                    fix="raise the limit, or choose a cheaper method with `headstart methods`",
                )
