"""The cache gives back what was put, never half a file, and stays within its limit."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.core import OverBudget, Unfit, Unreadable
from headstart.io.cache import Cache

KEYS = [f"{n:02x}" * 32 for n in range(8)]
ONE = np.arange(250, dtype=np.float32).reshape(25, 10)  # 1,128 bytes as a file


def file_of(cache: Cache, key: str) -> Path:
    return cache.folder / key[:2] / f"{key}.npy"


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("shape", [(25, 10), (0, 10), (3,), (2, 3, 4)])
def test_an_array_comes_back_bit_for_bit_and_mapped(tmp_path: Path, dtype: type, shape: tuple[int, ...]) -> None:
    cache, array = Cache(tmp_path / "c"), np.random.default_rng(0).normal(size=shape).astype(dtype)
    cache.put(KEYS[0], array)
    back = cache.get(KEYS[0])
    assert back is not None
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)
    assert isinstance(back, np.memmap) == (array.size > 0)
    assert file_of(cache, KEYS[0]).exists()


def test_what_was_not_put_is_not_there(tmp_path: Path) -> None:
    assert Cache(tmp_path / "none").get(KEYS[0]) is None
    assert Cache(tmp_path / "none").bytes() == 0
    assert Cache(tmp_path / "none").evict() == []


def test_arrays_in_another_order_of_memory_come_back_equal(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.put(KEYS[0], ONE.T)
    np.testing.assert_array_equal(np.asarray(cache.get(KEYS[0])), ONE.T)


@pytest.mark.parametrize("key", ["../../etc/passwd", "ab", "AB" * 16, "ab/cd" * 8, "", "ab" * 16 + "\n"])
def test_a_key_that_is_no_digest_is_unfit(tmp_path: Path, key: str) -> None:
    with pytest.raises(Unfit):
        Cache(tmp_path).get(key)
    with pytest.raises(Unfit):
        Cache(tmp_path).put(key, ONE)


@pytest.mark.parametrize("array", [ONE.astype(np.float64), ONE.astype(int), np.array([object()])])
def test_only_small_floats_are_cached(tmp_path: Path, array: np.ndarray) -> None:
    with pytest.raises(Unfit, match="float16 or float32"):
        Cache(tmp_path).put(KEYS[0], array)


@settings(max_examples=40)
@given(st.integers(0, 1127), st.sampled_from(["cut", "longer", "noise", "header"]))
def test_a_damaged_file_is_removed_and_not_there(tmp_path_factory: pytest.TempPathFactory, at: int, how: str) -> None:
    cache = Cache(tmp_path_factory.mktemp("c"))
    cache.put(KEYS[0], ONE)
    path, whole = file_of(cache, KEYS[0]), file_of(cache, KEYS[0]).read_bytes()
    damaged = {
        "cut": whole[:at],
        "longer": whole + b"x" * (at + 1),
        "noise": os.urandom(at),
        "header": whole[:6] + b"\xff" + whole[7:],
    }[how]
    path.write_bytes(damaged)
    assert cache.get(KEYS[0]) is None
    assert not path.exists()


def test_a_pickle_in_a_file_is_not_opened(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.put(KEYS[0], ONE)
    np.save(file_of(cache, KEYS[0]), np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert cache.get(KEYS[0]) is None


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for n, key in enumerate(KEYS[:4]):
        cache.put(key, ONE)
        os.utime(file_of(cache, key), (100 + n, 100 + n))
    assert cache.get(KEYS[0]) is not None  # used now
    assert cache.evict(2600) == [KEYS[1], KEYS[2]]
    assert [cache.get(k) is not None for k in KEYS[:4]] == [True, False, False, True]


def test_a_write_beyond_the_limit_makes_room_and_keeps_what_was_written(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 3500)
    for n, key in enumerate(KEYS):
        cache.put(key, ONE)
        os.utime(file_of(cache, key), (100 + n, 100 + n))
        assert cache.bytes() <= 3500
        assert cache.get(key) is not None
    cache.put(KEYS[0], np.zeros((5000, 10), dtype=np.float32))
    assert cache.bytes() <= 3500


def test_what_a_reader_has_mapped_stays_readable_after_it_was_evicted(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.put(KEYS[0], ONE)
    mapped = cache.get(KEYS[0])
    cache.evict(0)
    assert cache.get(KEYS[0]) is None
    np.testing.assert_array_equal(np.asarray(mapped), ONE)


def test_a_full_disk_is_told_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OverBudget, match="disk is full"):
        Cache(tmp_path).put(KEYS[0], ONE)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unreadable, match="cannot be used"):
        Cache(tmp_path / "file").put(KEYS[0], ONE)


def test_a_crash_before_the_rename_leaves_no_array_and_is_swept_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path)
    with monkeypatch.context() as broken:

        def crash(*_: object) -> None:
            raise KeyboardInterrupt

        broken.setattr(os, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            cache.put(KEYS[0], ONE)
    assert cache.get(KEYS[0]) is None
    left = list(tmp_path.rglob("*.part"))
    assert len(left) == 1
    cache.evict()
    assert left[0].exists()  # its writer may still be at work
    os.utime(left[0], (0, 0))
    cache.evict()
    assert not left[0].exists()


def test_several_processes_write_read_and_evict_at_once(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np; from headstart.io.cache import Cache\n"
        "cache = Cache(sys.argv[1], 4000)\n"
        "for n in range(36):\n"
        "    value = n % 12; key = f'{value:02x}' * 32\n"
        "    cache.put(key, np.full((25, 10), value, dtype=np.float32))\n"
        "    got = cache.get(key)\n"
        "    assert got is None or (got == value).all(), n\n"
        "cache.evict(); print(cache.bytes())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=environment, stdout=-1, stderr=-1)
        for _ in range(2)
    ]
    ends = [(process.communicate(), process.returncode) for process in started]
    assert [code for _, code in ends] == [0, 0], ends
    assert not list(tmp_path.rglob("*.part"))
