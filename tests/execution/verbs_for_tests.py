"""Jobs that cost nothing, for tests of runs: each verb is a function of spec and room."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headstart.core import Unfit
from headstart.execution.specs import Halted, Job, Room

MEMORY = 30 * 10**9


def run(job: Job, room: Room) -> dict[str, Any]:
    with (Path(room.root) / "ran.txt").open("a") as file:  # which jobs really ran
        file.write(f"{job.name}\n")
    value: dict[str, Any] = globals()[job.spec["do"]](job.spec, room)
    return value


def number(spec: Mapping[str, Any], room: Room) -> dict[str, Any]:
    """Something that looks random, and is a function of the seed."""
    value = spec["seed"] * 0.1 + 1 / 3
    (room.folder / "deep").mkdir()
    (room.folder / "deep" / "number.txt").write_text(repr(value))
    return {"value": value}


def nap(spec: Mapping[str, Any], room: Room) -> dict[str, Any]:
    """Works in steps, and stops softly."""
    for step in range(int(spec["steps"])):
        if room.stop():
            (room.folder / "whole.txt").write_text(str(step))
            raise Halted(step)
        time.sleep(spec["seconds"])
        room.report(f"step {step}")
    return {"steps": spec["steps"]}


def sleep_for_ever(spec: Mapping[str, Any], room: Room) -> dict[str, Any]:
    while True:
        time.sleep(60)


def refuse(spec: Mapping[str, Any], room: Room) -> dict[str, Any]:
    raise Unfit("a hostile \x1b[31m text", where="here", fix="there")


def break_down(spec: Mapping[str, Any], room: Room) -> dict[str, Any]:
    return {"value": 1 // spec["zero"]}


def allocate(spec: Mapping[str, Any], room: Room) -> dict[str, Any]:
    return {"bytes": len(bytearray(MEMORY))}


def touch_shared(spec: Mapping[str, Any], room: Room) -> dict[str, Any]:
    """Memory that RLIMIT_DATA does not see."""
    held = mmap.mmap(-1, int(spec["bytes"]))
    for at in range(0, len(held), 4096):
        held[at] = 1
    time.sleep(60)
    return {}


def die(spec: Mapping[str, Any], room: Room) -> dict[str, Any]:
    os.kill(os.getpid(), int(spec["signal"]))
    time.sleep(60)
    return {}


def chatter(spec: Mapping[str, Any], room: Room) -> dict[str, Any]:
    """Libraries that print must not disturb the pipe."""
    print("a line on stdout")
    os.system("echo a line of a child")
    return {"threads": os.environ["OMP_NUM_THREADS"], "path": os.getcwd()}


def pid(spec: Mapping[str, Any], room: Room) -> dict[str, Any]:
    return {"pid": os.getpid()}
