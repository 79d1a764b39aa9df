"""A stage called alone gets a run of its own, in a temporary folder that is gone afterwards."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headstart.core import Budget, Target
from headstart.execution import begin
from headstart.execution.parts import Part, part_of
from headstart.execution.run import Run
from headstart.io.places import cache_folder


@contextmanager
def lone_part(target: Target, budget: Budget, run: Run | None) -> Iterator[tuple[Run, Part]]:
    """The target as a part of `run`, or of a temporary one."""
    if run is not None:
        yield run, part_of(run, target, "root", cache_folder())
        return
    with tempfile.TemporaryDirectory(prefix="headstart-") as folder:
        inputs = {"target": target.fingerprint}
        with begin(Path(folder), budget, inputs=inputs) as own:
            yield own, part_of(own, target, "root", cache_folder())
