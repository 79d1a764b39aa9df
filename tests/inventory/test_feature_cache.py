"""The bank's index of a feature cache follows the folder, whoever changes it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from headstart.inventory import Inventory
from headstart.inventory.feature_cache import FeatureIndex
from headstart.io.cache import Cache

KEYS = [f"{n:02x}" * 16 for n in range(6)]
ONE = np.ones((25, 10), dtype=np.float32)  # 1,128 bytes as a file


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[Inventory]:
    with Inventory(tmp_path / "bank.db") as opened:
        yield opened


def test_the_index_knows_what_was_used_and_when(bank: Inventory, tmp_path: Path) -> None:
    cache = bank.feature_cache(tmp_path / "c")
    cache.put(KEYS[0], ONE)
    cache.put(KEYS[1], ONE)
    cache.close()
    index = FeatureIndex(bank._database, str(tmp_path / "c"))
    before = index.entries()
    assert set(before) == set(KEYS[:2])
    assert {size for size, _ in before.values()} == {1128}
    cache.get(KEYS[0])
    cache.close()
    after = index.entries()
    assert after[KEYS[0]][1] > before[KEYS[0]][1]
    assert after[KEYS[1]] == before[KEYS[1]]


def test_use_noted_in_the_bank_outlives_the_dates_of_the_files(bank: Inventory, tmp_path: Path) -> None:
    cache = bank.feature_cache(tmp_path / "c")
    for n, key in enumerate(KEYS[:4]):
        cache.put(key, ONE)
        os.utime(cache._path(key), (n, n))  # as after a copy of the folder: dates say nothing of use
    cache.close()
    cache.get(KEYS[0])
    cache.close()
    os.utime(cache._path(KEYS[0]), (0, 0))
    assert cache.evict(2600) == [KEYS[1], KEYS[2]]
    assert set(FeatureIndex(bank._database, str(tmp_path / "c")).entries()) == {KEYS[0], KEYS[3]}


def test_vanished_files_are_forgotten_and_new_ones_found(bank: Inventory, tmp_path: Path) -> None:
    cache = bank.feature_cache(tmp_path / "c")
    cache.put(KEYS[0], ONE)
    cache.close()
    cache._path(KEYS[0]).unlink()
    Cache(tmp_path / "c").put(KEYS[1], ONE)  # a worker, which has no bank
    assert cache.evict() == []
    assert set(FeatureIndex(bank._database, str(tmp_path / "c")).entries()) == {KEYS[1]}


def test_two_folders_do_not_mix(bank: Inventory, tmp_path: Path) -> None:
    for name in "ab":
        cache = bank.feature_cache(tmp_path / name)
        cache.put(KEYS[0], ONE)
        cache.close()
    index = FeatureIndex(bank._database, str(tmp_path / "a"))
    index.forget(KEYS)
    assert index.entries() == {}
    assert set(FeatureIndex(bank._database, str(tmp_path / "b")).entries()) == {KEYS[0]}
