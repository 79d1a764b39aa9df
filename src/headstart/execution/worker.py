"""A worker: `python -P -m headstart.execution.worker`, a process that does one job after another.

It reads JSON lines on stdin (`{"job": folder, "threads": n}`, `{"stop": true}`), and writes JSON lines on what was its
stdout; whatever libraries print goes to stderr, which is the run's log. It leads its own process group and ends, with
its children, when its parent ends. Here alone every exception is caught, and recorded.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import queue
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from headstart.core import OverBudget, Problem

from .specs import Halted, Job, Room, canonical

Verb = Callable[[Job, Room], Mapping[str, Any]]

REPORT_SECONDS = 0.2  # between two reports of a job's progress
TORCH_MEMORY = "DefaultCPUAllocator"  # torch says so in a RuntimeError when memory is refused


def attempt(module: str, job: Job, room: Room) -> dict[str, Any]:
    """What became of a job that `run` of a module does: `value`, `stopped` or `error`, and the seconds it took.

    Never raises an `Exception`. The first job of a process is not charged for the module's own import.
    """
    begun = time.monotonic()
    said: dict[str, Any]
    try:
        run = verb_of(module)
        begun = time.monotonic()
        said = {"value": json.loads(canonical(run(job, room)))}
    except Halted as halt:
        said = {"value": json.loads(canonical(halt.value)), "stopped": True}
    except Problem as problem:
        said = {"error": problem.as_dict()}
    except Exception as e:  # noqa: BLE001  a worker's boundary, and it alone, catches and records everything
        note_traceback(job, room)
        if isinstance(e, MemoryError) or TORCH_MEMORY in str(e):
            why, fix = "the memory limit was reached", "raise `--memory`, or leave this source out"
            said = {"error": OverBudget(why, where=job.name, fix=fix).as_dict(), "memory": True}
        else:
            last = (str(e).strip().splitlines() or [""])[-1]
            why = f"{type(e).__name__}: {last}" if last else type(e).__name__
            fix = "see the traceback in `run/log.txt` of the output folder"
            said = {"error": Problem(why, where=job.name, fix=fix).as_dict()}
    return {**said, "seconds": time.monotonic() - begun}


def note_traceback(job: Job, room: Room) -> None:
    """Append the traceback of the exception at hand to the run's log."""
    with (room.root / "log.txt").open("a", encoding="utf-8", errors="backslashreplace") as log:
        log.write(f"{job.verb} {job.name}\n{traceback.format_exc()}\n")


def verb_of(module: str) -> Verb:
    """The `run(job, room)` of a module by its name."""
    run: Verb = importlib.import_module(module).run
    return run


def limit_threads(threads: int) -> None:
    """So many threads for every library, loaded already or later."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        os.environ[name] = str(threads)
    if "numpy" in sys.modules or "torch" in sys.modules:  # what is not loaded yet will read the environment
        from threadpoolctl import threadpool_limits

        threadpool_limits(threads)
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(threads)


def die_with(parent: int) -> None:
    """On Linux the kernel ends this process as soon as the parent's thread ends; elsewhere stdin's end does.

    And where the machine has no memory left, the kernel takes this process and not its parent.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        Path("/proc/self/oom_score_adj").write_text("1000")
    if os.getppid() != parent:
        os._exit(1)


def listen(jobs: queue.Queue[dict[str, Any]], stop: threading.Event) -> None:
    """Take the parent's lines as they come; without a parent, end the whole group."""
    for line in sys.stdin:
        said = json.loads(line)
        if "job" in said:
            stop.clear()
            jobs.put(said)
        else:
            stop.set()
    os.killpg(0, signal.SIGKILL)


def main(parent: int, root: str, memory: int, module: str) -> None:
    """Work until the parent ends."""
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (memory if hard == resource.RLIM_INFINITY else min(memory, hard), hard))
    lock = threading.Lock()

    def say(fields: Mapping[str, Any]) -> None:
        with lock:
            out.write(canonical(fields) + "\n")
            out.flush()

    said_at = 0.0

    def report(text: str) -> None:
        nonlocal said_at
        if time.monotonic() - said_at >= REPORT_SECONDS:
            said_at = time.monotonic()
            say({"report": text})

    jobs: queue.Queue[dict[str, Any]] = queue.Queue()
    stop = threading.Event()
    threading.Thread(target=listen, args=(jobs, stop), daemon=True).start()
    threads = 0
    while True:
        task = jobs.get()
        if threads != task["threads"]:
            threads = int(task["threads"])
            limit_threads(threads)
        folder = Path(task["job"])
        job = Job(**json.loads((folder / "job.json").read_text()))
        room = Room(folder, Path(root), stop.is_set, report)
        say({"end": attempt(module, job, room)})


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4])
