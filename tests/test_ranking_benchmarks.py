"""The benchmarks of ranking: their figures against hand values, and the tables that they draw from files by hand."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from benchmark_files import benchmark_files

ROOT = Path(__file__).parents[1]
HISTORY = ROOT.parent / "shared" / "data" / "history"
MACHINE = {"cores": 2, "system": "Linux", "python": "3.11"}


@pytest.fixture
def bench() -> Any:
    with benchmark_files() as by_name:
        yield by_name


# -- figures ---------------------------------------------------------------------------------------------------------


def test_agreement_and_regret_by_hand(bench: Any) -> None:
    figures = bench("rank_figures")
    truth = [0.9, 0.8, 0.4]
    assert figures.tau([3, 2, 1], truth) == pytest.approx(1)
    assert figures.tau([1, 2, 3], truth) == pytest.approx(-1)
    assert figures.tau([1, 1, 1], truth) == 0
    assert figures.regret([1, 2, 3], truth) == pytest.approx(0.5)
    assert figures.regret([1, 2, 3], truth, k=2) == pytest.approx(0.1)
    assert figures.regret([1, 2, 3], truth, k=3) == 0


def test_intervals_hold_the_mean_and_close_where_nothing_varies(bench: Any) -> None:
    figures = bench("rank_figures")
    mean, low, high = figures.interval([0.0, 1.0, 2.0, 3.0])
    assert low < mean == 1.5 < high
    assert figures.interval([0.25] * 5) == (0.25, 0.25, 0.25)
    # the larger target counts for more: a ratio of sums, not a mean of ratios
    assert figures.ratio([1.0, 30.0], [1.0, 10.0])[0] == pytest.approx(31 / 11)


# -- ranking.py ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(120, 12, 3), (20, 40, 4)])
def test_our_three_scores_are_the_formulas_as_written(bench: Any, shape: tuple[int, int, int]) -> None:
    forms, (rows, width, classes) = bench("ranking_forms"), shape
    chance = np.random.default_rng(3)
    y = np.arange(rows) % classes
    f = (chance.standard_normal((rows, width)) + chance.standard_normal((classes, width))[y]).astype(np.float32)
    f[:, 0] += 50
    mine = forms.form("ours:logme+shrunk_h_score+gbc", None)(f, y)(f, y)
    want = [forms.form(f"brute:{name}", None)(f, y)(f, y)[0] for name in ("logme", "shrunk_h_score", "gbc")]
    np.testing.assert_allclose(mine, want, rtol=1e-8)  # the bar of the benchmark
    of_first = {form: forms.form(form, None)(f, y)(f, y)[0] for form in ("pass", "gram")}
    np.testing.assert_allclose(of_first["pass"], np.square(f[:, 0] - f[:, 0].mean(dtype="f8")).sum(), rtol=1e-9)
    np.testing.assert_allclose(of_first["gram"], np.square(f[:, 0].astype("f8")).sum(), rtol=1e-12)


def test_a_form_is_timed_until_its_seconds_are_spent_and_its_memory_is_that_of_the_first_call(bench: Any) -> None:
    forms = bench("ranking_forms")
    f, y = np.zeros((400, 8), dtype=np.float32), np.arange(400) % 2

    def hungry(features: Any, labels: Any) -> list[float]:
        return [float(np.ones((len(features) << 10, 24)).sum())] if len(features) == 400 else [0.0]

    found = forms.measured(lambda features, labels: hungry, f, y, seconds=60.0, repeats=3)
    assert len(found["seconds"]) == 3
    assert len(forms.measured(lambda features, labels: hungry, f, y, seconds=0.0, repeats=3)["seconds"]) == 1
    assert found["extra_bytes"] is None or found["extra_bytes"] > 60 << 20  # 79 MB were held, more than malloc keeps


def test_the_functions_of_tensorflow_that_gbc_asks_for_are_numpys(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forms = bench("ranking_forms")
    for name in ("tensorflow", "stable_transfer", "stable_transfer.transferability"):
        monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "gbc.py").write_text(
        "import tensorflow as tf\n"
        "from stable_transfer.transferability import transfer_experiment\n"
        "def get_gbc_score(f, y, kind):\n"
        "    names, _ = tf.unique(y)\n"
        "    rows = tf.gather_nd(f, tf.where(tf.equal(y, names[1])))\n"
        "    return tf.reduce_sum(tf.maximum(tf.math.reduce_variance(rows, axis=0), 1e-4)) + tf.math.log(tf.exp(1.0))\n"
        "@transfer_experiment.load_or_compute\n"
        "def other(): pass\n"
    )
    made = forms.google(tmp_path / "gbc.py")
    f, y = np.array([[9.0], [0.0], [2.0]]), np.array([0, 1, 1])
    assert made(f, y)(f, y) == [pytest.approx(2.0)]  # the variance 1, and log e
    for name in ("tensorflow", "stable_transfer", "stable_transfer.transferability"):
        sys.modules.pop(name, None)


def calls(seconds: float, megabytes: float, *values: float) -> dict[str, Any]:
    return {"seconds": [seconds, 2 * seconds], "extra_bytes": megabytes * 2**20, "values": values, "load": 0.5}


def ranking_cells() -> dict[str, Any]:
    three = "ours:logme+shrunk_h_score+gbc"
    made = {
        three: calls(0.1, 10, 1.0, 2.0, 3.0),
        "thuml:logme": calls(0.4, 300, 1.0),
        "transformer_ranker:logme": calls(0.3, 200, 1.0),  # the faster one counts
        "tllib:shrunk_h_score": calls(0.25, 100, 2.0),
        "google:gbc": calls(0.05, 50, -1.0),
        "ours:gbc": calls(0.1, 5, 3.0),
        "pass": calls(0.097, 0, 1.0),
        "gram": calls(0.095, 0, 1.0),
        "brute:logme": calls(5.0, 500, 1.0),
        "brute:shrunk_h_score": calls(5.0, 500, 2.0 + 2e-10),
        "brute:gbc": calls(5.0, 500, 3.0),
    }
    return {f"50000/384/10/1/{form}/0": cell for form, cell in made.items()}


def test_the_fastest_peers_count_and_bars_are_told(bench: Any) -> None:
    ranking = bench("ranking")
    (shape,) = ranking.shapes_of(ranking_cells())
    assert shape.rivals() == ["transformer_ranker:logme", "tllib:shrunk_h_score", "google:gbc"]
    assert shape.three() == pytest.approx(0.1 / 0.6)
    assert shape.memory() == pytest.approx(10 / 200)
    assert shape.share("gram") == pytest.approx(0.95)
    assert shape.share("pass") == pytest.approx(0.97)
    assert shape.difference() == pytest.approx(1e-10)
    told = ranking.report({"machine": MACHINE, "cells": ranking_cells()}, {"thuml:logme": "no numba"})
    assert "three scores in ≤ 0.20 of the time: in 1 of 1 shapes" in told
    assert "GBC alone no slower than the peer (ratio ≤ 1): in 0 of 1 shapes; worst 2 at 50000, 384, 10" in told
    assert "| 50000, 384, 10 | 100 | transformer_ranker 300 + tllib 250 + google 50.0 | 6.0 [6.0, 6.0] |" in told
    assert "left out: `thuml:logme`, no numba" in told


def test_a_shape_without_a_peer_is_shown_and_not_judged(bench: Any) -> None:
    ranking = bench("ranking")
    cells = {key: cell for key, cell in ranking_cells().items() if "google" not in key}
    (shape,) = ranking.shapes_of(cells)
    assert shape.three() is None
    assert "of the time: not measured" in ranking.report({"machine": MACHINE, "cells": cells}, {})


def test_what_is_not_given_is_left_out_with_the_reason(bench: Any, tmp_path: Path) -> None:
    ranking = bench("ranking")
    places = {"thuml": None, "tllib": tmp_path / "none", "google": tmp_path}
    plan = ranking.Plan(
        shapes=[], threads=1, rounds=1, seconds=1, repeats=1, brute_rows=0, python=sys.executable, places=places
    )
    assert plan.lacking("thuml:logme") == "--logme was not given"
    assert plan.lacking("tllib:transrate") == f"`{tmp_path / 'none'}` is not there"
    assert plan.lacking("google:gbc") is None
    forms = list(plan.forms(500))
    assert "ours:gbc" in forms
    assert not {form.partition(":")[0] for form in forms} & {"thuml", "tllib", "brute"}


# -- race.py ---------------------------------------------------------------------------------------------------------


def drawn(race: ModuleType) -> Any:
    """Two models of two layers each: one tells the classes, the other tells nothing."""
    chance = np.random.default_rng(0)
    y = np.arange(600) % 2
    clear = np.stack([y + 0.3 * chance.standard_normal(600) for _ in range(4)], axis=1)
    features = {"good@1": clear, "good@2": clear + 0.4 * chance.standard_normal((600, 4))}
    features |= {f"noise@{n}": chance.standard_normal((600, 4)) for n in (1, 2)}
    return race.Drawn(features, y, 2, chance.permutation(600), 512)


def test_a_race_drops_noise_and_layers_share_their_passes(bench: Any) -> None:
    race = bench("race")
    truth = {"good@1": 0.9, "good@2": 0.8, "noise@1": 0.5, "noise@2": 0.5}
    full, early = (race.judged(drawn(race), rule, truth) for rule in (race.FULL, race.DEFAULT))
    assert (full["passes"], full["kept"]) == (1, 4)
    assert early["chosen"] == full["chosen"] == "good@1"
    assert early["regret"] == 0
    assert early["gap"] == 0
    assert early["passes"] == pytest.approx((512 + 128) / 1024)  # noise left at the first rung
    assert early["kept"] == 2


def test_the_bernstein_rule_is_judged_by_rows_that_it_did_not_see(bench: Any) -> None:
    race = bench("race")
    truth = dict.fromkeys(("good@1", "good@2", "noise@1", "noise@2"), 0.5)
    found = race.judged(drawn(race), race.BERNSTEIN, truth)
    assert found["promised"] == 0  # the best is kept
    assert found["kept"] >= 1


def seed_cells(*, passes: dict[str, float], regret: dict[str, float], seeds: range) -> dict[str, Any]:
    rules = {
        name: {"passes": passes[name], "kept": 2, "regret": regret[name], "gap": 0.01, "chosen": "a"} for name in passes
    }
    return {f"seed/{name}/{s}": {"rules": rules, "settings": {}} for name in ("t", "u") for s in seeds}


def test_the_cheapest_rule_that_costs_no_more_than_a_tenth_of_a_point_is_chosen(bench: Any) -> None:
    race = bench("race")
    names = [rule.name for rule in race.RULES]
    passes, regret = dict.fromkeys(names, 0.5), dict.fromkeys(names, 0.05)
    passes[names[2]], passes[names[1]], regret[names[1]] = 0.2, 0.1, 0.06  # the cheapest costs a point
    cells = seed_cells(passes=passes, regret=regret, seeds=range(4))
    seeds = race.seeds_of(cells, range(4))
    assert race.chosen(seeds) == names[2]
    assert race.column(seeds, names[2], "passes").tolist() == [0.2] * 4
    assert race.covered(seeds, names[2], "gap", 0.005).startswith("0.00 [0.00,")
    assert race.covered(seeds, names[2], "gap", 0.02).startswith("1.00 [0.6")
    told = race.report({"cells": cells}, 2, 2)
    assert f"- {names[2]} (chosen on the other seeds): 0.20 of the passes, +0.00 points of regret" in told


def test_a_seed_that_one_set_lacks_is_not_counted(bench: Any) -> None:
    race = bench("race")
    names = {rule.name: 0.5 for rule in race.RULES}
    cells = seed_cells(passes=names, regret=names, seeds=range(3))
    del cells["seed/u/1"]
    assert list(race.seeds_of(cells, range(3))) == [0, 2]


# -- shelf_ranking.py ------------------------------------------------------------------------------------------------


def shelf_cells() -> dict[str, Any]:
    def one(name: str, score: float | None, logme: float) -> dict[str, Any]:
        proxies = {"logme": logme, "shrunk_h_score": logme}
        return {"name": name, "score": score, "rows": 10, "proxies": proxies, "dropped": None, "cost_seconds": 1.0}

    listed = [one("a", 0.9, 1.0), one("b", 0.8, 2.0), one("c", None, 0.0)]
    ours = {"seconds": 2.0, "sources": listed, "passes": {"rows": 25, "full": 100}, "load": 0.1, "settings": {}}
    theirs = {"seconds": 10.0, "scores": {"a": 0.1, "b": 0.3, "c": 0.2}, "settings": {}}
    cells: dict[str, Any] = {}
    for target in ("t", "u"):
        cells[f"rank/{target}/5/headstart"] = ours
        cells[f"rank/{target}/5/headstart-all"] = {**ours, "seconds": 4.0}
        cells[f"rank/{target}/5/transformer-ranker-logme"] = theirs
        for name, value in (("a", 0.7), ("b", 0.6), ("c", 0.2)):
            cells[f"truth/probe/{target}/{name}"] = {"value": value, "settings": {}}
    return cells


def test_systems_are_compared_on_the_same_targets_and_truth(bench: Any) -> None:
    shelf = bench("shelf_ranking")
    told = shelf.report({"machine": MACHINE, "cells": shelf_cells()})
    same = "0.0 [0.0, 0.0]"
    assert f"| headstart | 2 | 2.0 | 1.0 [1.0, 1.0] | 1.00 [1.00, 1.00] | {same} | {same} |" in told
    # its first is the second best by 10 points, and all three hold the best
    assert "| transformer-ranker-logme | 2 | 10.0 | 5.0 [5.0, 5.0] |" in told
    assert f"| 10.0 [10.0, 10.0] | {same} |" in told
    assert "| headstart, its logme | 2 |" in told
    assert "The race took 0.25 [0.25, 0.25] of the passes." in told


def test_a_target_without_the_whole_truth_is_not_judged(bench: Any) -> None:
    shelf, cells = bench("shelf_ranking"), shelf_cells()
    cells["truth/probe/u/c"] = {"error": "code 1", "settings": {}}
    assert list(shelf.truths(cells, "probe")) == ["t"]
    assert "- failed: `truth/probe/u/c`, code 1" in shelf.report({"machine": MACHINE, "cells": cells})


def test_copies_have_the_layers_asked_for_and_noise_of_the_size_asked_for(bench: Any, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    shelf, whole = bench("text_shelf"), tmp_path / "whole"
    whole.mkdir()
    weights = {f"encoder.layer.{n}.dense.weight": np.eye(8, dtype=np.float32) * n for n in range(3)}
    weights |= {"embeddings.weight": np.ones((4, 8), dtype=np.float32), "ids": np.arange(4)[None]}
    save_file(weights, whole / "model.safetensors")
    (whole / "config.json").write_text('{"num_hidden_layers": 3}')
    (whole / "head.safetensors").write_bytes(b"")
    two = shelf.shallow(whole, 2, tmp_path / "two")
    assert json.loads((two / "config.json").read_text()) == {"num_hidden_layers": 2}
    assert sorted(load_file(two / "model.safetensors")) == sorted(set(weights) - {"encoder.layer.2.dense.weight"})
    assert not (two / "head.safetensors").exists()
    noisy = load_file(shelf.damaged(whole, 1.0, tmp_path / "noisy") / "model.safetensors")
    np.testing.assert_array_equal(noisy["ids"], weights["ids"])
    np.testing.assert_array_equal(noisy["embeddings.weight"], weights["embeddings.weight"])  # of no deviation
    name = "encoder.layer.2.dense.weight"
    level = (noisy[name] - weights[name]).std() / weights[name].std()
    assert 0.7 < level < 1.3  # 64 draws


# -- records.py ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not HISTORY.is_dir(), reason="the histories are not beside the repository")
def test_published_correlations_follow_from_the_records(bench: Any) -> None:
    records = bench("records")
    medical = [("dataset", records.MED_DATASET), ("model", records.MED_MODEL)]
    figures = [f for axis, published in medical for f in records.medmnist(HISTORY, axis, published)]
    assert len(figures) == 112
    assert all(f.agrees for f in figures)
    lost = {(f.target, f.score) for f in records.tllib(HISTORY) if not f.agrees}
    # Aircraft's figures are of other accuracies than those beside them; DTD's NCE repeats LogME; two rest on ties that
    # rounding to three digits made
    aircraft = {("Aircraft", score) for score in records.TLLIB_SCORES}
    assert lost == aircraft | {("DTD", "NCE"), ("DTD", "LogME"), ("CIFAR100", "LogME")}


# -- fusion.py -------------------------------------------------------------------------------------------------------

DOCUMENTED = ROOT / "docs" / "explanation" / "ranking.md"


def documented(table: str) -> dict[str, list[float]]:
    """Figures of each method in the table of this name, in order."""
    below = DOCUMENTED.read_text(encoding="utf-8").partition(f"### {table}:")[2].partition("\n\n")[2]
    rows = [line.strip("| ").partition(" | ") for line in below.partition("\n\n")[0].splitlines()[2:]]
    return {name: figures_in(cells) for name, _, cells in rows}


def figures_in(cells: str) -> list[float]:
    return [float(n.rstrip("%")) / (100 if n.endswith("%") else 1) for n in re.findall(r"-?\d+(?:\.\d+)?%?", cells)]


@pytest.mark.skipif(not HISTORY.is_dir(), reason="the histories are not beside the repository")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # a source that was tried nowhere has no mean
@pytest.mark.parametrize(
    "table",
    ["tllib", *(pytest.param(f"medmnist, {axis}", marks=pytest.mark.slow) for axis in ("data sets", "architectures"))],
)
def test_fused_and_single_predictors_do_on_real_records_what_the_documentation_says(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    fusion = bench("fusion")
    monkeypatch.setattr(fusion, "WITH_PROXIES", {table: fusion.WITH_PROXIES[table]})
    monkeypatch.setattr(fusion, "SETS", {})
    merits, spans, _ = fusion.left_out(fusion.tables(HISTORY, tmp_path)[table])
    told, written = fusion.cells(merits, spans), documented(table)
    assert list(told) == list(written)
    for method, cells in told.items():
        # printed to two digits; what a solver of another version leaves open is of the same size
        np.testing.assert_allclose(figures_in(" ".join(cells)), written[method], atol=0.02, rtol=0.02, err_msg=method)
    assert {len(figures) for name, figures in written.items() if name in spans} == {3 + 3 + 1 + 3 + 1}


@pytest.mark.slow
@pytest.mark.skipif(not HISTORY.is_dir(), reason="the histories are not beside the repository")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_intervals_of_the_default_model_hold_nine_of_ten_figures_of_targets_that_were_left_out(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over all targets of all tables, by target, with a bootstrap over targets of its own."""
    fusion = bench("fusion")
    monkeypatch.setattr(fusion, "entries", lambda kind: ["ridge"])
    held = [fusion.left_out(pools)[1]["`ridge`"][:, 0] for pools in fusion.tables(HISTORY, tmp_path).values()]
    by_target = np.concatenate(held)
    assert len(by_target) == 70
    drawn = np.random.default_rng(1).choice(by_target, (4000, 70)).mean(axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    assert low < 0.9 < high
    assert high - low < 0.15  # and it tells something
