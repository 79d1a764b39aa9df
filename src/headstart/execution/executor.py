"""Where jobs run: in worker processes, or in this one (tests). Both give each job's end as it comes."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any, Protocol

import psutil

import headstart
from headstart.core import OverBudget, Problem, problem_from

from .specs import Job, Room, Stop, canonical
from .worker import attempt

GRACE_SECONDS = 1.0  # between the soft stop and the end of the process group
POLL_SECONDS = 0.2
UNTOUCHED = 2 * 2**30  # bytes that torch and its friends reserve (1.6 GB, measured as VmData) and never touch


@dataclass(frozen=True, eq=False, slots=True)
class Task:
    """An admitted job with its own, empty folder that holds `job.json`."""

    job: Job
    folder: Path


@dataclass(frozen=True, eq=False, slots=True)
class End:
    """How a task ended. stopped with a value: softly, at a step boundary; peak: bytes of the worker, as polled."""

    task: Task
    value: dict[str, Any] | None = None
    error: Problem | None = None
    stopped: Stop | None = None
    seconds: float = 0.0
    peak: int | None = None


def _silent(_task: Task, _text: str) -> None:
    """Nobody watches."""


@dataclass(frozen=True, eq=False, slots=True)
class Control:
    """What a barrier may use. left: seconds until all must stop. halts: how often the user asked to end."""

    left: Callable[[], float] = lambda: inf
    halts: Callable[[], int] = lambda: 0
    interrupt: Callable[[], None] = lambda: None
    report: Callable[[Task, str], None] = _silent
    workers: int = 1
    threads: int = 1

    def why(self) -> Stop | None:
        """The reason to stop all work, if there is one."""
        return "interrupt" if self.halts() else "time" if self.left() <= 0 else None


class Executor(Protocol):
    """Runs the tasks of a barrier, in any order, and gives each one's end."""

    def run(self, tasks: Sequence[Task], control: Control) -> Iterator[End]: ...
    def close(self) -> None: ...


def _ended(task: Task, said: dict[str, Any], why: Stop | None, peak: int | None = None) -> End:
    error = said.get("error")
    stop: Stop | None = "memory" if said.get("memory") else (why or "time") if said.get("stopped") else None
    problem = None if error is None else problem_from(error)
    return End(task, said.get("value"), problem, stop, said["seconds"], peak)


class InProcess:
    """Runs jobs one after another in this process: soft stops only, no limit on memory."""

    def __init__(self, root: Path, module: str) -> None:
        self.root, self.module = root, module

    def run(self, tasks: Sequence[Task], control: Control) -> Iterator[End]:
        for task in tasks:
            if why := control.why():
                yield End(task, {"step": 0}, stopped=why)
                continue
            try:
                said = attempt(self.module, task.job, self._room(task, control))
            except KeyboardInterrupt:
                control.interrupt()
                yield End(task, {"step": 0}, stopped="interrupt")
                continue
            yield _ended(task, said, control.why())

    def _room(self, task: Task, control: Control) -> Room:
        limit = time.monotonic() + (task.job.limit_seconds or inf)

        def stop() -> bool:
            return control.why() is not None or time.monotonic() >= limit

        return Room(task.folder, self.root, stop, lambda text: control.report(task, text), task.job.methods)

    def close(self) -> None:
        """Nothing is held."""


@dataclass(eq=False, slots=True)
class _Worker:
    """A worker process and the task it has."""

    process: subprocess.Popen[bytes]
    task: Task | None = None
    begun: float = 0.0
    stop_at: float = inf
    why: Stop | None = None
    kill_at: float = inf
    peak: int = 0
    pending: bytearray = field(default_factory=bytearray)

    def send(self, fields: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # its death is seen at its stdout
            self.process.stdin.write((canonical(fields) + "\n").encode())
            self.process.stdin.flush()

    def soft_stop(self, why: Stop, grace: float = GRACE_SECONDS) -> None:
        if self.why is None:
            self.why = why
            self.send({"stop": True})
        self.kill_at = min(self.kill_at, time.monotonic() + grace)

    def resident(self) -> int:
        """Bytes of the process and its children."""
        total = 0
        with suppress(psutil.Error):
            one = psutil.Process(self.process.pid)
            total = one.memory_info().rss
            for child in one.children(recursive=True):
                with suppress(psutil.Error):
                    total += child.memory_info().rss
        return total

    def kill(self) -> int:
        """End the whole process group; gives the exit status."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError, PermissionError):  # macOS says so for a group that has ended
                os.killpg(self.process.pid, sign)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(0.1 if sign == signal.SIGTERM else 5)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        return self.process.returncode or 0


class Workers:
    """Runs jobs in warm worker processes, within limits of time and memory that a job cannot pass.

    memory: bytes that this process and all workers may hold together. log: the file for what libraries print.
    """

    def __init__(self, root: Path, module: str, *, memory: float, log: Path) -> None:
        self.root, self.module, self.memory, self.log = root, module, memory, log
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()

    def run(self, tasks: Sequence[Task], control: Control) -> Iterator[End]:
        ours = [task for task in tasks if task.job.methods]  # the caller's objects: no worker knows their code
        yield from InProcess(self.root, self.module).run(ours, control)
        waiting = deque(task for task in tasks if not task.job.methods)
        try:
            while waiting or any(w.task for w in self._workers):
                try:
                    ends = self._turn(waiting, control)
                except KeyboardInterrupt:
                    control.interrupt()
                    continue
                yield from ends
        finally:
            for worker in [w for w in self._workers if w.task]:
                self._drop(worker)

    def close(self) -> None:
        for worker in list(self._workers):
            self._drop(worker)
        self._selector.close()

    def _turn(self, waiting: deque[Task], control: Control) -> list[End]:
        """Hand out work, wait a moment, keep the limits; gives what ended meanwhile."""
        ends: list[End] = []
        if why := control.why():
            ends += [End(task, {"step": 0}, stopped=why) for task in waiting]
            waiting.clear()
            for worker in self._busy():
                worker.soft_stop(why, 0.0 if control.halts() > 1 else GRACE_SECONDS)
        while waiting and len(self._busy()) < control.workers:
            self._give(waiting.popleft(), control.threads)
        if ends:
            return ends
        for key, _ in self._selector.select(self._pause(control)):
            ends += self._hear(key.data, control)
        return ends + self._enforce()

    def _busy(self) -> list[_Worker]:
        return [w for w in self._workers if w.task]

    def _pause(self, control: Control) -> float:
        now = time.monotonic()
        times = [min(w.stop_at, w.kill_at) - now for w in self._busy()]
        return max(0.0, min([POLL_SECONDS, control.left() or POLL_SECONDS, *times]))

    def _give(self, task: Task, threads: int) -> None:
        for worker in [w for w in self._workers if not w.task and w.process.poll() is not None]:
            self._drop(worker)  # it ended while it had nothing to do
        idle = [w for w in self._workers if not w.task]
        worker = idle[0] if idle else self._start(threads)
        worker.task, worker.begun, worker.why, worker.peak = task, time.monotonic(), None, 0
        worker.stop_at, worker.kill_at = worker.begun + (task.job.limit_seconds or inf), inf
        worker.send({"job": str(task.folder), "threads": threads})

    def _start(self, threads: int) -> _Worker:
        """A process that knows this package, and nothing of the user's `__main__`, folder or terminal."""
        here = str(Path(headstart.__file__).resolve().parent.parent)
        inherited = os.environ.get("PYTHONPATH", "")
        env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([here, inherited] if inherited else [here]),
            "PYTHONUNBUFFERED": "1",
            # on a busy machine threads that wait by spinning made a training step ten times slower
            "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            **{f"{n}_NUM_THREADS": str(threads) for n in ("OMP", "MKL", "OPENBLAS", "NUMEXPR")},
        }
        allowed = int(UNTOUCHED + max(0, self.memory - psutil.Process().memory_info().rss))
        module = "headstart.execution.worker"
        command = [sys.executable, "-P", "-m", module, str(os.getpid()), str(self.root), str(allowed), self.module]
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=env,
                start_new_session=True,
            )
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        worker = _Worker(process)
        self._workers.append(worker)
        self._selector.register(process.stdout, selectors.EVENT_READ, worker)
        return worker

    def _hear(self, worker: _Worker, control: Control) -> list[End]:
        """Read what a worker says; an end of file is its death."""
        assert worker.process.stdout is not None
        try:
            data = os.read(worker.process.stdout.fileno(), 1 << 20)
        except BlockingIOError:
            return []
        worker.pending += data
        ends: list[End] = []
        *lines, rest = bytes(worker.pending).split(b"\n")
        worker.pending = bytearray(rest)
        for line in lines:
            said = json.loads(line)
            if worker.task is None:
                continue
            if "report" in said:
                control.report(worker.task, said["report"])
            elif "end" in said:
                peak = max(worker.peak, worker.resident())
                ends.append(_ended(worker.task, said["end"], worker.why, peak))
                worker.task = None
        if not data:
            ends += self._died(worker)
        return ends

    def _enforce(self) -> list[End]:
        """Stop what is past its time, end what does not stop or takes too much memory."""
        ends: list[End] = []
        now = time.monotonic()
        for worker in self._busy():
            worker.peak = max(worker.peak, worker.resident())
            if now >= worker.stop_at and worker.why is None:
                worker.soft_stop("time")
            if now >= worker.kill_at or worker.process.poll() is not None:
                ends += self._died(worker)
        sizes = {id(w): w.resident() for w in self._workers}
        if self._workers and psutil.Process().memory_info().rss + sum(sizes.values()) > self.memory:
            ends += self._died(max(self._workers, key=lambda w: sizes[id(w)]), why="memory")
        return ends

    def _died(self, worker: _Worker, why: Stop | None = None) -> list[End]:
        """The end of the task of a worker that is dead, or is ended now for a reason."""
        if why is None and worker.why is None:
            with suppress(subprocess.TimeoutExpired):
                worker.process.wait(GRACE_SECONDS)  # its own status, before any signal of ours
        status = self._drop(worker)
        task, seconds = worker.task, time.monotonic() - worker.begun
        if task is None:
            return []
        why = why or worker.why
        error: Problem | None = None
        if why == "memory":
            error = OverBudget(
                f"{worker.peak:.3g} bytes are used, and {self.memory:.3g} may be, all processes together",
                where=task.job.name,
                fix="raise `--memory`, or leave this source out",
            )
        elif why is None:
            name = f"signal {-status} ({signal.Signals(-status).name})" if status < 0 else f"status {status}"
            hint = "often the system is out of memory then: leave this source out, or free some; " * (status == -9)
            error = Problem(
                f"the worker ended with {name}",
                where=task.job.name,
                fix=f"{hint}see `run/log.txt` of the output folder",
            )
        value = {"step": 0} if why in ("time", "interrupt") else None
        return [End(task, value, error, why, seconds, worker.peak)]

    def _drop(self, worker: _Worker) -> int:
        if worker not in self._workers:
            return worker.process.returncode or 0
        self._workers.remove(worker)
        if worker.process.stdout is not None:
            self._selector.unregister(worker.process.stdout)
        return worker.kill()
