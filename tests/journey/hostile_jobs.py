"""The jobs of a run, some of them slow, and those of some sources worse: for workers in tests."""

from __future__ import annotations

import time
from typing import Any

from headstart.execution import jobs
from headstart.execution.specs import Halted, Job, Room

SLOW_SECONDS = 0.25
HOG_BYTES = 30 * 10**9


def run(job: Job, room: Room) -> dict[str, Any]:
    """As `execution.jobs.run`, after a while; a source named sleeper never ends, and one named hog takes 30 GB."""
    name = str((job.spec.get("source") or {}).get("name"))
    while name == "sleeper":
        time.sleep(60)
    if name == "hog":
        return {"bytes": len(bytearray(HOG_BYTES))}
    if job.verb == "fit":
        for step in range(5):
            if room.stop():
                raise Halted(step, {"folds": []})
            time.sleep(SLOW_SECONDS / 5)
    return jobs.run(job, room)
