"""A run: barriers of jobs, decisions and notes, all journalled; what is finished is never done again.

    with execution.begin(out, budget, inputs={"target": target.fingerprint, "settings": {…}}, resume=False) as run:
        folder = run.folder / "target"                       # dump what jobs read; paths in specs are relative to it
        plan = run.decide("plan", lambda: {"rungs": …})      # whatever read the clock, the bank, or a measured speed
        jobs = [Job("fit", "probe of minilm", {"kind": "adaptation.routes", …}, memory=2e9, limit_seconds=60)]
        outcomes = run.do(jobs, "adapt")                     # a barrier: outcomes in the order of the jobs
        best = max((o for o in outcomes if o.ok), key=…)     # o.value (JSON), o.files (folder), o.error, o.stopped
        with run.meter.timed("verify"): …                    # time that the parent itself spends
        run.note("seal opened", rows=200)                    # from here on nothing may be chosen

- `run.do(jobs, stage, must=True)` is for work that a valid result needs: not the deadline stops it but the end of the
  tolerance, half a minute from now at the earliest (and limit_seconds, and Ctrl-C).
- A failed job is an outcome with `error`; it costs the others nothing. `stopped` is `time`, `memory` or `interrupt`.
- `run.meter.left()` (seconds, less `run.meter.keep(seconds)`), `.trials_left`, `.spent_by_stage`, `.bound` (the time
  limit was binding); `run.interrupted` after Ctrl-C: `do` then gives what is finished, and decisions are not binding.
- On resume, replay the same calls: finished jobs, decisions and notes come from the journal. A decision is known by its
  name, a job by its verb and spec. What was decided or stopped only because the time was over is forgotten when there
  is time again and the seal was not opened.
- After Ctrl-C, `run.calm()` lets the jobs run that saving needs.
- `run.drop(outcome)` deletes a finished job's files that nothing will read; `run.spend_disk(bytes)` charges others.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import inf
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Literal, Self

from headstart.core import Budget, OverBudget, Problem, Refused, Unreadable, problem_from

from .executor import Control, End, Executor, InProcess, Task, Workers
from .journal import ENDS, SEAL_OPENED, VERSION, Journal
from .meter import Meter, cores
from .progress import Progress, Show
from .specs import Job, Outcome, canonical

SECOND_WORKER_SECONDS = 20.0  # a second worker pays for its imports only when so much time is left


class Run:
    """An open run. Made by `execution.begin`."""

    def __init__(self, folder: Path, journal: Journal, meter: Meter, executor: Executor, progress: Progress) -> None:
        self.folder, self.journal, self.meter, self.executor, self.progress = folder, journal, meter, executor, progress
        self.hook: Callable[[str], None] = journal.hook or _no_hook
        self.halts = 0
        self._calmed = 0
        self._handler: Any = None

    @classmethod
    def open(
        cls,
        out: Path,
        budget: Budget,
        *,
        inputs: Mapping[str, Any],
        resume: bool,
        executor: Literal["workers", "in_process"],
        started: float | None,
        show: Show,
        hook: Callable[[str], None] | None,
        jobs: str,
    ) -> Run:
        """Open or reopen the journal; refuse what cannot go on."""
        folder = Path(out).absolute() / "run"
        try:
            (folder / "trials").mkdir(parents=True, exist_ok=True)
            journal = Journal(folder / "journal.jsonl", hook=hook)
        except OSError as e:
            raise Unreadable(
                f"the folder cannot be written ({e.strerror})", where=f"`{out}`", fix="give another folder with `--out`"
            ) from e
        try:
            meter = Meter(budget, started=started, earlier=journal.spent)
            given = json.loads(canonical(inputs))
            _check(journal, given, budget, resume, out)
            journal.clock = meter.session
            if journal.header is None:
                journal.write("header", version=VERSION, inputs=given)
            if SEAL_OPENED in journal.notes:
                journal.forget_stops_of_verify()
            elif meter.remaining() > 0:
                journal.forget_late()
            journal.write("session", budget_seconds=budget.seconds if budget.seconds < inf else None, pid=os.getpid())
            for part in sorted(folder.glob("trials/*.part-*")):
                shutil.rmtree(part)
            kept = [end for key, end in journal.ends.items() if key not in journal.dropped]
            meter.disk_spent = float(sum(sum(end.get("files", {}).values()) for end in kept))
            for line in journal.lines:
                if line["event"] == "barrier":
                    meter.charge(line["stage"], line["seconds"])
        except BaseException:
            journal.close()
            raise
        log = folder / "log.txt"
        runs: Executor = (
            InProcess(folder, jobs) if executor == "in_process" else Workers(folder, jobs, memory=meter.memory, log=log)
        )
        run = cls(folder, journal, meter, runs, Progress(meter.remaining, show=show))
        journal.late = lambda: run.interrupted or meter.bound
        return run

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._handler = signal.signal(signal.SIGINT, self._on_interrupt)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)
        self.progress.close()
        self.executor.close()
        self.journal.close()

    @property
    def interrupted(self) -> bool:
        """Whether the user pressed Ctrl-C."""
        return self.halts > 0

    @property
    def sealed(self) -> bool:
        """Whether the test rows are still unread, over all sessions."""
        return SEAL_OPENED not in self.journal.notes

    @property
    def workers(self) -> int:
        """How many jobs of a barrier are done at the same time."""
        return int(self._fits()["workers"])

    def do(self, jobs: Sequence[Job], stage: str, *, must: bool = False) -> list[Outcome]:
        """Run what is not finished yet, and give all outcomes in the order of the jobs.

        Admission is journalled before anything starts. must: the deadline does not stop these jobs, as said above.
        """
        begun = time.monotonic()
        refused = self._admit(jobs, stage)
        unique = {job.key: job for job in jobs}
        for key, problem in refused.items():
            self.journal.write("failed", key=key, error=problem.as_dict(), seconds=0.0, stage=stage)
        todo = [job for key, job in unique.items() if self._outcome(key) is None]
        self.progress.stage(stage, len(todo))
        cut: dict[str, Outcome] = {}
        if todo:
            tasks = [self._task(job) for job in todo]
            for end in self.executor.run(tasks, self._control(todo[0].key, must)):
                cut[end.task.job.key] = self._finish(end, stage)
                self.progress.advance(end.task.job.name)
            seconds = time.monotonic() - begun
            self.meter.charge(stage, seconds)
            self.journal.write("barrier", stage=stage, seconds=seconds, jobs=len(unique))
        return [self._outcome(job.key) or cut[job.key] for job in jobs]

    def decide(self, name: str, compute: Callable[[], Any]) -> Any:
        """A JSON value that is computed once, journalled, and read from the journal ever after."""
        if name not in self.journal.decisions:
            self.journal.write("decision", name=name, value=compute())
        return self.journal.decisions[name]["value"]

    def forecast(self, stage: str, seconds: float) -> None:
        """What a stage is expected to take in all, to stand beside the bill: the first time it is said counts."""
        self.meter.forecasts[stage] = float(self.decide(f"forecast of {stage}", lambda: seconds))

    def note(self, name: str, **facts: Any) -> None:
        """Journal a fact once; equal notes are one."""
        if json.loads(canonical(facts)) not in self.journal.notes.get(name, []):
            self.journal.write("note", name=name, facts=facts)

    def noted(self, name: str) -> list[dict[str, Any]]:
        """All facts that were noted under a name, in every session."""
        return list(self.journal.notes.get(name, []))

    def spend_disk(self, size: float, *, step: str = "run") -> None:
        """Charge bytes that are about to be written. Raises `OverBudget`."""
        self.meter.spend_disk(size, step=step)

    def drop(self, outcome: Outcome) -> None:
        """Delete the files of a finished job; its value stays, and it is not done again."""
        for key, one in self.journal.admitted.items():
            if self._folder(one["number"]) == outcome.files and key not in self.journal.dropped:
                self.journal.write("dropped", key=key)
                self.meter.spend_disk(-sum(self.journal.ends[key].get("files", {}).values()), step="run")
        shutil.rmtree(outcome.files, ignore_errors=True)

    def calm(self) -> None:
        """After Ctrl-C: let what saving needs run. The next Ctrl-C ends everything."""
        self._calmed = self.halts

    def _on_interrupt(self, _sign: int, _frame: FrameType | None) -> None:
        self.halts += 1
        if self.halts > 1:
            raise KeyboardInterrupt

    def _interrupt(self) -> None:
        self.halts += 1
        if self._calmed:
            raise KeyboardInterrupt

    def _folder(self, number: int) -> Path:
        return self.folder / "trials" / f"{number:04d}"

    def _admit(self, jobs: Sequence[Job], stage: str) -> dict[str, Problem]:
        """Give new jobs their numbers, and journal them; gives those that do not fit into what is left."""
        fits = self._fits()
        new = {job.key: job for job in jobs if job.key not in self.journal.admitted}
        if new:
            first = len(self.journal.admitted) + 1
            entries = [{"number": first + i, "key": key, **_fields(job)} for i, (key, job) in enumerate(new.items())]
            threads = max(1, int(fits["cores"]) // min(int(fits["workers"]), len(new)))
            self.journal.write("admitted", stage=stage, threads=threads, jobs=entries)
        refused: dict[str, Problem] = {}
        for job in jobs:
            problem = self._refusal(job)
            if problem and self._outcome(job.key) is None:
                refused[job.key] = problem
        return refused

    def _refusal(self, job: Job) -> Problem | None:
        """Why a job does not fit into the budget, if so; counts its trial where it does."""
        if job.memory is not None and job.memory > self.meter.memory:
            return OverBudget(
                f"about {job.memory:.3g} bytes of memory are needed, and {self.meter.memory:.3g} may be used",
                where=job.name,
                fix="raise `--memory`, or choose a smaller source or a cheaper method",
            )
        if self.meter.disk_spent > float(self.meter.budget.disk):
            return OverBudget(
                f"{self.meter.disk_spent:.3g} bytes are written, and {float(self.meter.budget.disk):.3g} may be",
                where=job.name,
                fix="raise the limit with `--disk`, or leave sources out",
            )
        if job.trial is not None and not self.meter.start_trial(job.trial):
            return OverBudget(
                f"all {self.meter.budget.trials} trials have started", where=job.name, fix="raise `--trials`"
            )
        return None

    def _fits(self) -> dict[str, int]:
        def found() -> dict[str, int]:
            many = cores() >= 2 and self.meter.remaining() > SECOND_WORKER_SECONDS
            return {"cores": cores(), "workers": 2 if many else 1}

        fits: dict[str, int] = self.decide("workers", found)
        return fits

    def _control(self, key: str, must: bool) -> Control:
        return Control(
            left=_until(self.meter.remaining_for_all()) if must else self.meter.remaining,
            halts=lambda: self.halts - self._calmed,
            interrupt=self._interrupt,
            report=lambda task, text: self.progress.advance(f"{task.job.name}: {text}", by=0),
            workers=self.workers,
            threads=int(self.journal.admitted[key]["threads"]),
        )

    def _task(self, job: Job) -> Task:
        """The job's folder under a name of its own; only a finished one gets its final name."""
        number = self.journal.admitted[job.key]["number"]
        part = self.folder / "trials" / f"{number:04d}.part-{os.getpid()}"
        self.hook(f"trial.{number:04d}.begin")
        with _on_disk(part):
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            (part / "job.json").write_text(canonical(job.as_dict()), encoding="utf-8")
        return Task(job, part)

    def _finish(self, end: End, stage: str) -> Outcome:
        """Give the folder its final name, then journal the end."""
        key, number = end.task.job.key, self.journal.admitted[end.task.job.key]["number"]
        folder = self._folder(number)
        self.hook(f"trial.{number:04d}.end")
        with _on_disk(folder):
            if folder.exists():
                shutil.rmtree(folder)
            end.task.folder.rename(folder)
        self.hook(f"trial.{number:04d}.renamed")
        files = {p.relative_to(folder).as_posix(): p.stat().st_size for p in sorted(folder.rglob("*")) if p.is_file()}
        self.meter.disk_spent += sum(files.values())
        if end.stopped == "time" and end.error is None and self.meter.remaining() == 0:
            self.meter.bound = True
        bill = {"seconds": end.seconds, "stage": stage, "peak_memory": end.peak, "files": files}
        if end.error is not None:
            self.journal.write("failed", key=key, error=end.error.as_dict(), stopped=end.stopped, **bill)
        elif end.stopped is not None:
            self.journal.write("stopped", key=key, value=end.value, stopped=end.stopped, **bill)
        else:
            self.journal.write("finished", key=key, value=end.value, **bill)
        found = self._outcome(key)
        assert found is not None
        return found

    def _outcome(self, key: str) -> Outcome | None:
        """What the journal says about a job; None where it is not finished, or its files are gone."""
        end = self.journal.ends.get(key)
        if end is None:
            return None
        assert end["event"] in ENDS
        folder = self._folder(self.journal.admitted[key]["number"])
        if key not in self.journal.dropped:
            for name, size in end.get("files", {}).items():
                if not (folder / name).is_file() or (folder / name).stat().st_size != size:
                    return None
        return Outcome(
            ok=end["event"] == "finished",
            value=end.get("value") or {},
            files=folder,
            seconds=float(end["seconds"]),
            error=problem_from(end["error"]) if "error" in end else None,
            stopped=end.get("stopped"),
        )


@contextmanager
def _on_disk(folder: Path) -> Iterator[None]:
    """A full or broken disk, in a person's terms."""
    try:
        yield
    except OSError as e:
        why = f"cannot be written ({e.strerror})"
        raise Problem(why, where=f"`{folder}`", fix="free some space, then go on with `--resume`") from e


def _until(seconds: float) -> Callable[[], float]:
    """Counts down from now."""
    end = time.monotonic() + seconds
    return lambda: max(0.0, end - time.monotonic())


def _no_hook(_name: str) -> None:
    """Nobody watches."""


def _fields(job: Job) -> dict[str, Any]:
    return {"verb": job.verb, "name": job.name, "spec": job.spec, "memory": job.memory}


def _check(journal: Journal, inputs: Mapping[str, Any], budget: Budget, resume: bool, out: Path) -> None:
    """Raises `Refused` where this run cannot begin, or cannot go on, in this folder."""
    if journal.header is None:
        return
    if not resume:
        raise Refused(
            "the folder holds a run that was begun before", where=f"`{out}`", fix="add `--resume` or `--overwrite`"
        )
    before = journal.header["inputs"]
    changed = sorted(k for k in {*before, *inputs} if before.get(k) != inputs.get(k))
    if changed:
        raise Refused(
            f"{_differences(before, inputs, changed)} changed since this run began",
            where=f"`{out}`",
            fix="give what was given then, or begin again with `--overwrite`",
        )
    last = [line["budget_seconds"] for line in journal.lines if line["event"] == "session"]
    if SEAL_OPENED in journal.notes and last and budget.seconds > (inf if last[-1] is None else last[-1]):
        raise Refused(
            "the test rows were read, so that more minutes would not be fair",
            where=f"`{out}`",
            fix="add `--resume` with the minutes given before, or begin again with `--overwrite`",
        )


def _differences(before: Mapping[str, Any], after: Mapping[str, Any], changed: Sequence[str]) -> str:
    """The changed entries by name, inside nested ones too.

    >>> _differences({"settings": {"seed": 0, "metric": "f1"}}, {"settings": {"seed": 1, "metric": "f1"}}, ["settings"])
    '`settings.seed` (was 0, is 1)'
    """
    said = []
    for name in changed:
        old, new = before.get(name), after.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            inner = sorted(k for k in {*old, *new} if old.get(k) != new.get(k))
            said += [f"`{name}.{k}` (was {_short(old.get(k))}, is {_short(new.get(k))})" for k in inner]
        else:
            said.append(f"`{name}` (was {_short(old)}, is {_short(new)})")
    return ", ".join(said)


def _short(value: Any) -> str:
    text = canonical(value)
    return text if len(text) <= 40 else f"{text[:37]}…"
