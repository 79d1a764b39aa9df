"""Targets as tasks: vectors are kept by encoder, and tell recall which past targets are alike."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import tiny_models
from headstart.core import Source, Target
from headstart.inspection import read_target
from headstart.inventory import Inventory


@pytest.fixture
def bank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inventory]:
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path / "home"))
    tiny_models.save_model(tmp_path / "eyes", "bert", num_hidden_layers=1)
    with Inventory(tmp_path / "bank.db") as held:
        held.add(tmp_path / "eyes")
        yield held


def target(name: str, word: str | None, seed: int, rows: int = 80) -> Target:
    """Texts that hold a word or not; without a word, labels are drawn."""
    texts, draw = tiny_models.texts(rows, seed=seed, longest=9)["text"].to_pylist(), random.Random(seed)
    labels = [draw.choice("ab") if word is None else "ab"[word in text.split()] for text in texts]
    return read_target((texts, labels), name=name)


def test_a_task_is_embedded_once_for_each_encoder(bank: Inventory, monkeypatch: pytest.MonkeyPatch) -> None:
    eyes, task = bank.show("eyes"), target("cats", "cat", 0)
    one = bank.embed(task, eyes)
    assert one.shape == (12,)

    def opened(source: Source) -> None:
        raise AssertionError("it is kept")

    monkeypatch.setattr("headstart.io.sources.opened", opened)
    np.testing.assert_array_equal(bank.embed(target("cats", "cat", 0), eyes), one)
    with pytest.raises(AssertionError, match="it is kept"):
        bank.embed(target("others", "dog", 1), eyes)


def test_what_is_known_of_past_targets_is_of_those_that_were_embedded(bank: Inventory) -> None:
    eyes = bank.show("eyes")
    past = [target("one", "cat", 1), target("noise", None, 2), target("never", "cat", 3)]
    for task in past[:2]:
        bank.embed(task, eyes)
    known = bank.known([task.fingerprint for task in past], target("new", "cat", 4), None, encoder=eyes)
    assert known.similarities is not None
    assert known.between is not None
    assert np.isfinite(known.similarities).tolist() == [True, True, False]
    assert np.isfinite(known.between).tolist() == [[True, True, False], [True, True, False], [False] * 3]
    assert known.between[0, 0] == known.between[1, 1] == 1.0
    same = bank.known([past[0].fingerprint], past[0], None, encoder=eyes).similarities
    assert same is not None
    assert same[0] == 1.0
