"""Ranking where a row has several labels: the probe, the race and the score, on sources that are tables of features."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression

import headstart as hs
from headstart import execution
from headstart.core import Refused, Rows, Source, Target
from headstart.execution.parts import measured, part_of
from headstart.io.places import cache_folder
from headstart.numerics import metrics
from headstart.ranking import racing
from headstart.ranking.racing import Ranked
from journey import shelves

Array = np.ndarray[Any, Any]
NAMES = ("always", "big", "old", "red")  # and `never`, which only the test has


def target(rows: int = 120, seed: int = 0) -> Target:
    """Every row has `always`, a tenth has `red`."""
    rng = shelves.draws("several", seed)
    held = rng.random((rows, 3)) < (0.4, 0.3, 0.1)
    labels = [["always", *(n for n, has in zip(NAMES[1:], row, strict=True) if has)] for row in held]
    texts = [f"n{seed}x{at}" for at in range(rows)]
    test = pa.table({"text": ["unseen"], "label": [["never"]]})
    train = pa.table({"text": texts, "label": labels})
    return hs.read_target(train, text="text", label="label", test=test, name="several")


def told(source: Source, order: Callable[[int], Array] = np.arange, strength: float = 3.0) -> shelves.Features:
    """Noise, with the labels of the rows in this order in it."""

    def features(rows: Rows) -> Array:
        assert rows.labels is not None
        axes = shelves.draws("axes").normal(size=(rows.labels.shape[1], shelves.WIDTH)) / shelves.WIDTH**0.5
        return np.asarray(shelves.noise(source)(rows) + strength * rows.labels[order(len(rows))] @ axes)

    return features


def race(aim: Target, shelf: list[Source], tmp_path: Path) -> list[Ranked]:
    with execution.begin(tmp_path / "run", hs.Budget(), inputs={}, executor="in_process", show="none") as run:
        return racing.race(part_of(run, aim, "root", cache_folder()), shelf, run, ("nmc",))


def cells(one: Ranked) -> Array:
    assert one.probe is not None
    return one.probe.cells()


def test_the_probe_is_one_logistic_regression_for_each_label(tmp_path: Path, text_model: Source) -> None:
    """As scikit-learn fits them, on the same folds and at the strength that was chosen; a head is float32."""
    aim = target()
    source = shelves.fill(aim, shelves.named(text_model, "good"), told(shelves.named(text_model, "good")))
    (one,) = race(aim, [source], tmp_path)
    assert aim.task.classes == ("always", "big", "never", "old", "red")
    x, y = told(source)(aim.labelled).astype(np.float32).astype(np.float64), aim.labelled.labels
    assert y is not None
    assert one.probe is not None
    for fold in one.probe.folds:
        train, valid = aim.folds.sides(fold["repeat"], fold["fold"])
        centre, scale = x[train].mean(axis=0), x[train].std(axis=0)
        for label in (1, 3, 4):
            fit = LogisticRegression(C=fold["facts"]["strength"], tol=1e-10, max_iter=9999)
            fit.fit((x[train] - centre) / scale, y[train, label])
            theirs = fit.predict_proba((x[valid] - centre) / scale)[:, 1]
            np.testing.assert_allclose(cells(one)[fold["repeat"], valid, label], theirs, atol=1e-4)


def test_labels_that_always_or_never_occur(tmp_path: Path, text_model: Source) -> None:
    aim = target()
    source = shelves.fill(aim, shelves.named(text_model, "good"), told(shelves.named(text_model, "good")))
    (one,) = race(aim, [source], tmp_path)
    table = cells(one)
    scored = np.array(aim.folds.of) >= 0
    assert table[scored][:, 0].min() > 0.99
    assert table[scored][:, 2].max() < 0.01
    assert one.score is not None
    assert one.score == measured(aim, table), "micro-F1 over rows and labels, with its interval over rows"
    assert one.score.low < one.score.value < one.score.high
    assert np.isfinite(one.proxies["nmc"])


def test_shuffled_labels_are_at_chance(tmp_path: Path, text_model: Source) -> None:
    """No better than the shares of the labels; in their own order they are far better."""
    aim, losses = target(200), {}
    labels = aim.labelled.labels
    assert labels is not None
    orders = {"own": np.arange, "shuffled": lambda n: shelves.draws("shuffle").permutation(n)}
    for name, order in orders.items():
        source = shelves.named(text_model, name)
        (one,) = race(aim, [shelves.fill(aim, source, told(source, order))], tmp_path / name)
        seen = np.array(aim.folds.of[0]) >= 0
        losses[name] = float(metrics.row_losses("micro_f1", labels[seen], cells(one)[0][seen]).mean())
    shares = np.tile(labels.mean(axis=0), (len(labels), 1))
    chance = float(metrics.row_losses("micro_f1", labels, shares).mean())
    assert losses["shuffled"] == pytest.approx(chance, rel=0.05)
    assert losses["own"] < 0.8 * chance


def test_noise_leaves_the_race(tmp_path: Path, text_model: Source) -> None:
    aim = target(500)
    good, bad = (shelves.named(text_model, name) for name in ("good", "noise"))
    shelf = [shelves.fill(aim, bad, shelves.noise(bad)), shelves.fill(aim, good, told(good, strength=3.0))]
    first, last = race(aim, shelf, tmp_path)
    assert (first.source.name, first.dropped) == ("good", None)
    assert last.dropped is not None
    assert last.rows < 500


def test_solve_refuses_several_labels_still(tmp_path: Path, text_model: Source) -> None:
    with pytest.raises(Refused, match="multi-label"):
        shelves.solved(target(), [text_model], tmp_path / "out")
