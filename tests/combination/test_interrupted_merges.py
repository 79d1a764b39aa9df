"""Merges that are killed anywhere, that find no room, or that meet: a folder is whole or as it was, and goes on well.

Processes are forked, so that they are real and begin at once.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import random
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from headstart.combination.merging import carried_out, merge, merge_auto, planned
from headstart.combination.plans import Plan
from headstart.combination.writing import LOCK, RECEIPT, fingerprint
from headstart.core import Problem, Refused, Unreadable
from headstart.inspection import read_target
from headstart.io.atomic import PART
from tuned_models import Family

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
SHAPES = {"a": (20, 9), "b": (7,), "c": (9, 20), "d": (40,), "e": (3, 5), "f": (11, 11)}
METHODS = ("dare", "ties", "tsv_m", "slerp")
SHARD = 400  # bytes: one or two tensors each
Did = dict[str, bytes]


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """A base and two fine-tunes."""
    made = []
    for seed in range(3):
        g = torch.Generator().manual_seed(seed)
        made.append(tmp_path / "in" / str(seed))
        made[-1].mkdir(parents=True)
        tensors = {n: torch.randn(s, generator=g).bfloat16() for n, s in SHAPES.items()}
        save_file(tensors, made[-1] / "model.safetensors", metadata={"format": "pt"})
        (made[-1] / "config.json").write_text("{}")
    return made


def merged(folders: list[Path], method: str, out: Path, **more: Any) -> Did:
    merge(folders[1:], method, base=folders[0], out=out, shard_bytes=SHARD, threads=2, **more)
    return weights(out)


def weights(folder: Path) -> Did:
    """The bytes of all files that must be alike."""
    json.loads((folder / RECEIPT).read_text())
    return {f.name: f.read_bytes() for f in sorted(folder.iterdir()) if "safetensors" in f.name}


def left_behind(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name.startswith(PART))


def forked(job: Callable[[], object]) -> int:
    """A process of its own that does a job, and ends with 0, or with 1 where that fails."""
    process = os.fork()
    if not process:
        with suppress(BaseException):
            job()
            os._exit(0)
        os._exit(1)
    return process


def ended(process: int) -> int:
    """How a process ended: its code, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def watched(below: Path, at: Callable[[], object]) -> None:
    """From now on in this process, `at` is called whenever something below a folder is opened, written or moved."""

    def heard(event: str, told: tuple[Any, ...]) -> None:
        if told and isinstance(told[0], str | Path) and str(told[0]).startswith(str(below)):
            at()

    sys.addaudithook(heard)
    put, sync = os.pwrite, os.fsync

    def pwrite(handle: int, data: Any, start: int) -> int:
        at()
        some = put(
            handle, data[: len(data) // 2 + 1], start
        )  # the disk takes half of it, and the rest when asked again
        at()
        return some

    def fsync(handle: int) -> None:
        at()
        sync(handle)

    os.pwrite, os.fsync = pwrite, fsync


def killed(job: Callable[[], object], below: Path, point: int) -> int:
    """A process that is killed at the so-manieth event; how it ended."""
    left = [point]

    def count() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return ended(forked(lambda: (watched(below, count), job())))


def events(job: Callable[[], object], below: Path, noted: Path) -> int:
    """How many there are in a job that nobody disturbs."""
    seen = [0]

    def count() -> None:
        seen[0] += 1

    assert ended(forked(lambda: (watched(below, count), job(), noted.write_text(str(seen[0]))))) == 0
    return int(noted.read_text())


def kills(
    folders: list[Path], tmp_path: Path, method: str, points: Callable[[int], list[int]], before: bool
) -> list[int]:
    """Kill at points, look at the folder, merge again. before: the folder has another merge, to be replaced.

    Gives the points at which there was no folder, but for what lies aside.
    """
    place, more = tmp_path / "place", {"overwrite": True} if before else {}
    place.mkdir()
    whole = merged(folders, method, tmp_path / "whole")
    old = merged(folders, "linear", tmp_path / "old")
    out = place / "out"

    def begin() -> None:
        if before:
            merged(folders, "linear", out, overwrite=True)
        elif out.exists():
            out.rename(tmp_path / f"moved{len(list(tmp_path.iterdir()))}")

    def job() -> Did:
        return merged(folders, method, out, **more)

    between: list[int] = []
    begin()
    many = events(job, place, tmp_path / "noted")
    for point in points(many):
        begin()
        assert killed(job, place, point) in (-signal.SIGKILL, 0)  # two threads: there may be an event less
        if out.exists():
            assert weights(out) in ([old, whole] if before else [whole])
        elif before:
            assert left_behind(place), "what was there lies beside"
            with pytest.raises(Refused, match="holds something already"):
                merged(folders, "linear", out)
            assert weights(out) == old, "and is put back"
            between.append(point)
        if before or not out.exists():
            assert job() == whole
        assert weights(out) == whole
        assert not (out / LOCK).exists()
        assert [n for n in left_behind(place) if not (before and ".old-" in n)] == []
    return between


@pytest.mark.parametrize("seed", range(2))
def test_killed_anywhere_the_folder_is_whole_or_absent_and_goes_on(
    folders: list[Path], tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    kills(folders, tmp_path, METHODS[seed], lambda many: chance.sample(range(1, many + 1), 5), before=False)


def test_killed_in_the_last_steps_it_is_whole_or_absent(folders: list[Path], tmp_path: Path) -> None:
    kills(folders, tmp_path, "dare", lambda many: list(range(many - 7, many + 1)), before=False)


def test_killed_while_it_replaces_a_folder_the_old_one_or_the_new_one_is_there(
    folders: list[Path], tmp_path: Path
) -> None:
    def points(many: int) -> list[int]:
        return [3, many // 2, *range(many - 18, many + 1)]

    assert kills(folders, tmp_path, "ties", points, before=True), "one kill was between the two renames"


@pytest.mark.slow
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_killed_at_every_fifth_event(folders: list[Path], tmp_path: Path, method: str, before: bool) -> None:
    kills(folders, tmp_path, method, lambda many: list(range(1 + METHODS.index(method), many + 1, 5)), before)


@contextmanager
def room_for(most: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A disk that takes so many bytes of weights, the last of them in part, and then says that it is full."""
    left, put, alone = [most], os.pwrite, Lock()

    def pwrite(handle: int, data: Any, start: int) -> int:
        with alone:
            some = put(handle, data[: left[0]], start) if left[0] else 0
            left[0] -= some
        if not some:
            raise OSError(errno.ENOSPC, "No space left on device")
        return some

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        yield


@contextmanager
def files_of(most: int) -> Iterator[None]:
    """The system's own limit on the bytes of a file, which every kind of write runs into."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("before", [False, True])
def test_a_disk_that_fills_up_anywhere_leaves_what_was_there(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    place, chance = tmp_path / "place", random.Random(7)
    out, more = place / "out", {"overwrite": True} if before else {}
    whole = merged(folders, "dare", tmp_path / "whole")
    place.mkdir()
    old = merged(folders, "linear", out) if before else {}
    weigh = sum(len(data) for name, data in whole.items() if name.endswith(".safetensors"))
    longest = max(f.stat().st_size for f in (tmp_path / "whole").iterdir()) - 100  # a receipt's length varies a little
    limits = [room_for(n, monkeypatch) for n in [0, weigh - 1, *chance.sample(range(weigh), 6)]]
    limits += [files_of(n) for n in [1, longest, *chance.sample(range(longest), 6)]]
    for limit in limits:
        with limit, pytest.raises(Unreadable, match="the disk is full") as caught:
            merged(folders, "dare", out, **more)
        assert "choose another folder with --out" in caught.value.fix
        assert left_behind(place) == []
        assert (weights(out) == old) if before else not out.exists()
    assert merged(folders, "dare", out, **more) == whole


@pytest.mark.parametrize("settings", [{}, {"density": 0.5}])
def test_of_two_processes_one_is_refused_and_the_other_is_whole(
    folders: list[Path], tmp_path: Path, settings: dict[str, float]
) -> None:
    out, whole = tmp_path / "out", merged(folders, "dare", tmp_path / "whole")
    begun, go_on = os.pipe(), os.pipe()

    def wait(done: int, total: int) -> bool:
        if done < total:
            os.write(begun[1], b"1")
            os.read(go_on[0], 1)
        return True

    first = forked(lambda: merged(folders, "dare", out, report=wait))
    os.read(begun[0], 1)
    with pytest.raises(Refused, match="another merge is writing to this folder") as caught:
        merged(folders, "dare", out, settings=settings)
    assert "wait for it" in caught.value.fix
    os.write(go_on[1], b"1" * 100)
    assert ended(first) == 0
    assert weights(out) == whole
    assert left_behind(tmp_path) == []


def test_of_processes_that_begin_at_once_one_writes(folders: list[Path], tmp_path: Path) -> None:
    """Whoever is later is refused, in words, whether the first still writes or is done."""
    wholes = [merged(folders, "dare", tmp_path / f"w{i}", settings={"density": d}) for i, d in enumerate((0.3, 0.6))]
    for trial in range(6):
        out, gate = tmp_path / f"out{trial}", os.pipe()

        def job(number: int, out: Path = out, gate: tuple[int, int] = gate, trial: int = trial) -> None:
            os.read(gate[0], 1)
            density = 0.3 if trial % 2 or not number else 0.6
            try:
                merged(folders, "dare", out, settings={"density": density})
            except Problem as problem:
                refused = isinstance(problem, Refused) and problem.what in (
                    "another merge is writing to this folder", "the output folder holds something already",
                )  # fmt: skip
                os._exit(3 if refused else 4)

        processes = [forked(lambda number=number: job(number)) for number in range(3)]
        os.write(gate[1], b"111")
        assert sorted(ended(p) for p in processes) == [0, 3, 3]
        assert weights(out) in wholes
        assert left_behind(tmp_path) == []


def test_how_a_merge_was_chosen_is_no_part_of_what_it_is(folders: list[Path]) -> None:
    """Two choices of one merge differ in their seconds; other weights are another merge."""
    plan = planned(folders[1:], "ties", base=folders[0])

    def after(**learned: Any) -> Plan:
        return dataclasses.replace(plan, learned={"weights": "a", **learned})

    def choice(seconds: float) -> dict[str, Any]:
        return {"seconds": seconds, "candidates": [{"name": "ties", "seconds": seconds}]}

    chosen = [fingerprint(after(choice=choice(s))) for s in (1.0, 2.5)]
    searched = [fingerprint(after(searched={"trials": n * [{"loss": 0.5}]})) for n in (3, 4)]
    assert {*chosen, *searched} == {fingerprint(after())}
    assert fingerprint(after(weights="b")) != chosen[0]
    assert fingerprint(planned(folders[1:], "ties", base=folders[0], settings={"density": 0.5})) != chosen[0]


def test_a_chosen_merge_that_is_killed_while_it_is_written_goes_on(
    tuned: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The choice is made again and takes other seconds; of the weights, those that were written stay."""
    from headstart.combination import merging
    from headstart.io import shards

    monkeypatch.setattr(shards, "FLUSH_BYTES", 1)  # else so few bytes would all be done again
    rows = {t: read_target(tuned.tables[t]["valid"], label="label", name=t) for t in tuned.models}
    begun: list[int] = []

    def auto(out: str, report: Callable[[int, int], bool] | None = None) -> Did:
        place = merge_auto(
            list(tuned.models.values()), rows, base=tuned.base, out=tmp_path / out, methods=["ties"],
            shard_bytes=10_000, threads=1, report=report,
        ).where  # fmt: skip
        return {str(f.relative_to(place)): f.read_bytes() for f in sorted(place.rglob("*.safetensors"))}

    def halfway(done: int, total: int) -> bool:
        if 2 * done > total:
            os.kill(os.getpid(), signal.SIGKILL)
        return True

    def killed_while_it_writes(plan: Plan, out: Path, **options: Any) -> None:
        options["report"] = halfway
        assert ended(forked(lambda: carried_out(plan, out, **options))) == -signal.SIGKILL
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(merging, "carried_out", killed_while_it_writes)
        with pytest.raises(KeyboardInterrupt):
            auto("out")
    assert not (tmp_path / "out").exists()
    assert len(left_behind(tmp_path)) == 1

    def noted(done: int, total: int) -> bool:
        begun.append(2 * done - total)
        return True

    written = auto("out", noted)
    assert begun[0] > 0, "it goes on beyond the half that was there"
    assert left_behind(tmp_path) == []
    assert written == auto("whole")
