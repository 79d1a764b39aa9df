"""What sources decide: asked once, kept without names of classes, told to recall for one set of probes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import tiny_models
from headstart.core import Rows, Unfit
from headstart.inspection import read_unlabelled
from headstart.inventory import Inventory
from headstart.inventory.decisions import vectors

from .shelves import a_target

Array = np.ndarray[Any, Any]


@pytest.fixture
def bank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inventory]:
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path / "home"))
    with Inventory(tmp_path / "bank.db") as held:
        yield held


def probes(count: int = 60, seed: int = 0) -> Rows:
    return read_unlabelled(tiny_models.texts(count, seed=seed, longest=12))


def by_word(word: str, yes: str = "yes", no: str = "no") -> Any:
    """A black box that decides by one word."""

    def answer(inputs: pa.Table) -> Array:
        return np.array([yes if word in text.split() else no for text in inputs["text"].to_pylist()])

    return answer


def test_a_head_is_asked_once_and_names_of_classes_do_not_matter(bank: Inventory, tmp_path: Path) -> None:
    tiny_models.save_model(tmp_path / "shelf" / "judge", "bert", head=True, num_hidden_layers=1)
    tiny_models.save_model(tmp_path / "shelf" / "headless", "bert", num_hidden_layers=1)
    added, _ = bank.add(tmp_path / "shelf")
    boxes = {"cats": by_word("cat"), "cats too": by_word("cat", "no", "feline"), "dogs": by_word("dog")}
    answered, failed = bank.ask(added, probes(), boxes)
    judge, headless = (next(source for source in added if source.name == name) for name in ("judge", "headless"))
    assert answered == [judge.identity, "cats", "cats too", "dogs"]
    assert [key for key, _ in failed] == [headless.identity]
    assert "asked for predictions" in failed[0][1].what
    found = vectors(bank._database, ["cats", "dogs", "cats too", "judge", judge.identity, "nobody"])
    assert found is not None
    assert found.shape == (6, 128)
    np.testing.assert_allclose(found[0], found[2], atol=1e-6)  # kept in float32
    assert found[0] @ found[1] < 0.9
    np.testing.assert_array_equal(found[3], found[4])  # by name and by identity
    assert np.isnan(found[5]).all()


def test_the_order_of_probes_and_those_that_repeat_do_not_matter(bank: Inventory) -> None:
    rows = probes()
    bank.ask([], rows, {"a": by_word("cat")})
    bank.ask([], rows.take([*range(59, -1, -1), 3, 3]), {"b": by_word("cat")})
    found = vectors(bank._database, ["a", "b"])
    assert found is not None
    np.testing.assert_array_equal(found[0], found[1])


def test_two_sets_of_probes_never_meet(bank: Inventory) -> None:
    bank.ask([], probes(seed=1), {"a": by_word("cat"), "b": by_word("dog"), "c": by_word("the")})
    bank.ask([], probes(seed=2), {"a": by_word("cat"), "b": by_word("dog")})
    every, pair = vectors(bank._database, ["a", "b", "c"]), vectors(bank._database, ["a", "b"])
    assert every is not None
    assert np.isfinite(every).all()  # the set that all three answered
    assert pair is not None
    assert not np.allclose(pair, every[:2])  # of two sets with as many answers the newer one
    assert vectors(bank._database, ["nobody"]) is None
    assert vectors(bank._database, []) is None


def test_answers_of_another_shape_or_all_the_same_are_listed(bank: Inventory) -> None:
    boxes = {"mute": by_word("nowhere"), "short": lambda inputs: np.zeros(3), "cats": by_word("cat")}
    answered, failed = bank.ask([], probes(), boxes)
    assert answered == ["cats"]
    assert [(name, problem.what) for name, problem in failed] == [
        ("mute", "it says the same of all probes"),
        ("short", "it gave answers of the shape (3,) to 60 probes"),
    ]


def test_few_probes_are_refused(bank: Inventory) -> None:
    with pytest.raises(Unfit, match="12 different rows are too few"):
        bank.ask([], probes(12), {"cats": by_word("cat")})


def test_what_is_known_of_a_target_holds_the_vectors_of_the_sources_that_are_named(bank: Inventory) -> None:
    target = a_target(train=["a cat", "a dog"], test=["the hill"])
    assert bank.known((), target, None, ["cats"]).vectors is None
    bank.ask([], probes(), {"cats": by_word("cat")})
    told = bank.known((), target, None, ["nobody", "cats"]).vectors
    assert told is not None
    assert np.isfinite(told).all(axis=1).tolist() == [False, True]
    assert bank.known((), target).vectors is None
