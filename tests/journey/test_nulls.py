"""Where nothing can be learned, nothing is claimed: permuted labels, and shelves of noise, through all of solve."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from scipy.stats import binom

import headstart as hs
from headstart.core import Source
from journey import shelves

pytestmark = pytest.mark.usefixtures("light")
HELPS = 0.025  # of true nulls: a 95 % interval lies above 0
MOST = 0.05  # what is promised where the null is not exact: pooled outer folds, and macro-F1, in which systems that all
# guess differ (one that always says the commonest class has 0.33 of two classes, one that draws has 0.5)


def permuted(rows: int, test: int, seed: int) -> hs.Target:
    """Texts that would say their class, were the labels not those of other rows."""
    both = shelves.texts(rows + test, seed=seed, told=1.0)
    order = shelves.draws("permuted", seed).permutation(both.num_rows)
    both = both.set_column(1, "label", both["label"].take(pa.array(order)))
    tested = {"test": both.slice(rows)} if test else {}
    return hs.read_target(both.slice(0, rows), label="label", text="text", metric="accuracy", name="p", **tested)


def shelf_of(target: hs.Target, base: Source, kind: Any, *names: str) -> list[Source]:
    made = [shelves.named(base, name) for name in names]
    for source in made:
        shelves.fill(target, source, kind(source))
    return made


def at_chance(out: Path, rows: int, test: int) -> None:
    """Every validation and test score within what guessing gives, allowing for how many are looked at."""
    told = json.loads((out / "report.json").read_text())
    validated = {t["name"]: t["score"] for t in told["trials"] if t["score"] is not None}
    assert len(validated) >= 4
    tested = {b["name"]: b["value"] for b in told["summary"]["baselines"]}
    tested["candidate"] = told["summary"]["candidate"]["value"]
    allowed = 0.001 / (len(validated) + len(tested))
    for scores, count in ((validated, rows), (tested, test or rows)):
        most = binom.ppf(1 - allowed, count, 0.5) / count
        assert all(v <= most for v in scores.values()), (scores, most)
    if test:  # cross-validated scores of permuted labels lie below a half: what is left out of a fold is rarer in it
        least = binom.ppf(allowed, test, 0.5) / test
        assert all(v >= least for v in tested.values()), (tested, least)


def chance(folder: Path, base: Source, rows: int, test: int, seed: int) -> str:
    target = permuted(rows, test, seed)
    shelf = shelf_of(target, base, shelves.noise, f"a{seed}", f"b{seed}")
    shelf += shelf_of(target, base, spoiled(seed), f"spoiled{seed}")
    result = shelves.solved(target, shelf, folder, hs.Inventory(folder.with_suffix(".db")))
    at_chance(folder, rows, test)
    return str(result.verdict)


def spoiled(seed: int) -> Any:
    """A source that knows the words' classes well, which say nothing of the permuted labels."""

    def kind(source: Source) -> shelves.Features:
        def features(rows: Any) -> Any:
            words = rows.inputs["text"].to_pylist()
            says = [int(shelves.tiny_models.WORDS[21] in w.split()) for w in words]
            return shelves.noise(source)(rows) + 4.0 * shelves.np.array(says)[:, None]

        return features

    return kind


def test_permuted_labels_are_at_chance(tmp_path: Path, text_model: Source) -> None:
    assert chance(tmp_path / "out", text_model, 60, 100, 0) != "helps"


@pytest.mark.slow
@pytest.mark.parametrize("rows", [(60, 100), (60, 0)])
def test_permuted_labels_are_at_chance_for_many_seeds(
    tmp_path: Path, text_model: Source, rows: tuple[int, int]
) -> None:
    runs = 30 if rows[1] else 12
    found = [chance(tmp_path / str(seed), text_model, *rows, seed) for seed in range(1, runs + 1)]
    assert found.count("helps") <= binom.ppf(0.99, runs, HELPS)


def false_helps(place: Path, base: Source, rows: tuple[int, int], metric: str, *, shelf: int, runs: int) -> int:
    """How often noise is said to help, where labels are noise too."""
    found = []
    for seed in range(runs):
        target = shelves.tickets(*rows, seed=seed, metric=metric)
        sources = shelf_of(target, base, shelves.noise, *(f"noise {seed} {n}" for n in range(shelf)))
        result = shelves.solved(target, sources, place / str(seed))
        found.append(result.verdict)
        assert result.summary["returned"] == ("chosen" if result.verdict == "helps" else "no-transfer")
    print(f"{rows} rows, {metric}: { ({str(v): found.count(v) for v in dict.fromkeys(found)}) }")
    return found.count("helps")


def test_noise_does_not_help(tmp_path: Path, text_model: Source) -> None:
    assert false_helps(tmp_path, text_model, (40, 60), "accuracy", shelf=2, runs=2) <= binom.ppf(0.99, 2, HELPS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "metric", "rate"),
    [((60, 100), "accuracy", HELPS), ((60, 100), "macro_f1", MOST), ((50, 0), "accuracy", MOST)],
)
def test_noise_does_not_help_on_200_shelves(
    tmp_path: Path, text_model: Source, rows: tuple[int, int], metric: str, rate: float
) -> None:
    assert false_helps(tmp_path, text_model, rows, metric, shelf=2, runs=200) <= binom.ppf(0.99, 200, rate)
