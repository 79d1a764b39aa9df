"""The target card: counts done by hand, formulas worked out beside, and no label of a test row."""

from __future__ import annotations

import json
from math import isclose, sqrt
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headstart.inspection import inspect, read_target

KEYS = {
    "name", "task", "modality", "metric", "rows", "labelled", "unlabelled", "test", "classes", "imbalance", "columns",
    "lengths", "sizes", "duplicates", "conflicting_labels", "label_variants", "leaks", "smallest_difference",
    "protocol", "notes",
}  # fmt: skip


def texts(n: int) -> list[str]:
    return [f"a text about case number {i}" for i in range(n)]


def test_counts_of_a_small_table() -> None:
    text = [*texts(10), "Twice  the same", "twice the same", "no label here"]
    target = read_target({"text": text, "label": [*"aaaaaabbbb", "a", "b", None]}, name="tickets")
    card = inspect(target)
    assert set(card) >= KEYS
    assert json.loads(json.dumps(card)) == card
    assert (card["name"], card["rows"], card["labelled"], card["unlabelled"], card["test"]) == ("tickets", 13, 12, 1, 0)
    assert card["classes"] == [{"name": "a", "rows": 7}, {"name": "b", "rows": 5}]
    assert isclose(card["imbalance"], 7 / 5)
    assert card["duplicates"] == {
        "labelled_rows": 1, "labelled_contents": 1, "unlabelled_rows": 0, "test_rows": 0,
    }  # fmt: skip
    conflicts = card["conflicting_labels"]
    assert (conflicts["contents"], conflicts["rows"], conflicts["examples"][0]["labels"]) == (1, 2, ["a", "b"])
    assert isclose(conflicts["ceiling_accuracy"], 11 / 12)
    assert card["lengths"]["quantiles"]["1"] == len(text[0])
    assert card["protocol"]["name"] == "outer_cv"
    assert card["protocol"]["folds"] == {"kind": "cv", "k": 5, "repeats": 2}


def test_the_smallest_difference_counts_groups_and_widens_in_outer_folds() -> None:
    text = texts(100)
    target = read_target({"text": text + text, "label": ["a", "b"] * 100})
    found = inspect(target)["smallest_difference"]
    assert found["groups"] == 100
    assert isclose(found["value"], 1.96 * sqrt(2 * 0.8 * 0.2 * 0.5 / 100) * sqrt(1.25))
    tested = read_target(
        {"text": text, "label": ["a", "b"] * 50}, test=([f"new {i}" for i in range(64)], ["a", "b"] * 32)
    )
    assert isclose(inspect(tested)["smallest_difference"]["value"], 1.96 * sqrt(2 * 0.8 * 0.2 * 0.5 / 64))
    number = read_target((np.random.default_rng(0).normal(size=(100, 2)), np.arange(100) * 0.7))
    card = inspect(number)
    assert isclose(card["smallest_difference"]["value"], 1.96 * 0.5 * sqrt(0.75 / 100) * sqrt(1.25))
    assert isclose(card["values"]["high"], 99 * 0.7)


def test_the_card_shows_no_label_of_a_test_row() -> None:
    test = {"text": [f"sealed {i}" for i in range(6)], "label": ["a", "a", "a", "a", "a", "b"]}
    flipped = {**test, "label": ["b", "b", "b", "b", "b", "a"]}
    train: dict[str, Any] = {"text": texts(20), "label": ["a", "b"] * 10}
    targets = [read_target(train, test=t) for t in (test, flipped)]
    cards = [{k: v for k, v in inspect(t).items() if k != "fingerprint"} for t in targets]
    assert cards[0] == cards[1]
    assert "sealed" not in json.dumps({k: v for k, v in cards[0].items() if k != "protocol"})
    assert all(t.seal.opened == 0 for t in targets)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"tokens": [["To", f"Paris{i}"] for i in range(5)], "tags": [["O", "B"]] * 4 + [["O", "O"]]}, [6, 4]),
        ({"text": texts(10), "label": [["x"], ["x", "y"]] * 5}, [10, 5]),
    ],
)
def test_tags_and_several_labels_are_counted(data: dict[str, Any], expected: list[int]) -> None:
    counts = {c["name"]: c["rows"] for c in inspect(read_target(data))["classes"]}
    assert sorted(counts.values(), reverse=True) == expected


def test_images_have_sizes_and_tables_have_features() -> None:
    images = [Image.new("RGB", (4 + i, 6), (i * 20, 0, 0)) for i in range(8)]
    card = inspect(read_target((images, list("abababab"))))
    assert (card["sizes"]["width"][0], card["sizes"]["width"][-1], card["sizes"]["height"][0]) == (4, 11, 6)
    assert card["lengths"] is None
    table = inspect(read_target((np.random.default_rng(0).normal(size=(30, 2)), [0, 1] * 15)))
    assert table["columns"]["features"] == [{"name": "x0", "kind": "number"}, {"name": "x1", "kind": "number"}]


@pytest.mark.parametrize("protocol", ["holdout", "time", "user_test"])
def test_each_protocol_is_put_in_words(protocol: str) -> None:
    n = 1200 if protocol == "holdout" else 40
    data: dict[str, Any] = {"text": texts(n), "label": ["a", "b"] * (n // 2), "when": list(range(n))}
    extra = {"holdout": {}, "time": {"time": "when"}, "user_test": {"test": (["new"], ["a"])}}[protocol]
    card = inspect(read_target(data, **extra))  # type: ignore[arg-type]
    assert card["protocol"]["name"] == protocol
    assert str(card["test"]) in card["protocol"]["sentence"]
