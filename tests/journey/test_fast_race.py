"""Races on features of faster arithmetic: who leaves is decided by them, and what is told is of float32."""

from __future__ import annotations

import json
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import headstart as hs
from headstart.cli.rankings import _passes
from headstart.core import Source
from headstart.execution import backends, begin
from headstart.execution.views import opener
from headstart.io import encoders, exports, sources
from headstart.io.backends import EXPORTED, FAST, gain
from headstart.ranking.estimators.ridge_probe import RidgeProbe
from headstart.ranking.racing import Rule
from journey import shelves

pytestmark = pytest.mark.usefixtures("light")
ROWS = 300


@pytest.fixture
def shelf(text_model: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Source]:
    """An encoder and one that says nothing, on a processor where everything but float32 is fast."""
    monkeypatch.setattr("headstart.io.backends.gain", lambda _: 9.0)
    monkeypatch.setattr("headstart.ranking.racing.FAST_FROM", ROWS)
    shelves.model(tmp_path / "other")
    weights = load_file(tmp_path / "other" / "model.safetensors")
    save_file({k: np.zeros_like(v) for k, v in weights.items()}, tmp_path / "other" / "model.safetensors")
    (other,), _ = sources.scan(tmp_path / "other")
    return [text_model, other]


def ranked(shelf: list[Source], folder: Path, monkeypatch: pytest.MonkeyPatch, rule: Rule = "paired") -> Any:
    monkeypatch.setenv("HEADSTART_HOME", str(folder / "home"))
    with begin(folder, hs.Budget(), inputs={}, executor="in_process", show="none") as run:
        found = hs.rank(shelves.tickets(ROWS, told=1.0), shelf, hs.Budget(), "nmc", rule=rule, run=run)
        jobs = [json.loads(p.read_text()) for p in run.folder.rglob("job.json")]
    receipts = [s.receipt for s in found]
    assert None not in receipts
    return found, receipts, jobs


@pytest.mark.parametrize("lower", ["int8", "onnx-int8"])
def test_the_race_is_fast_and_the_figures_are_of_float32(
    shelf: list[Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lower: str
) -> None:
    monkeypatch.setattr(backends, "EXPORT_FROM", 0.0)
    monkeypatch.setattr(exports, "installed", lambda: True)
    monkeypatch.setattr(exports, "key_of", lambda identity: identity)
    monkeypatch.setattr(exports, "exported", lambda module, *_, int8: module)  # what an export is, test_exports.py says
    monkeypatch.setattr(backends, "choice", lambda seconds, _scores: lower if lower in seconds else "float32")
    found, fast, jobs = ranked(shelf, tmp_path / "fast", monkeypatch)
    monkeypatch.setattr(backends, "choice", lambda _seconds, _scores: "float32")
    _, plain, _ = ranked(shelf, tmp_path / "plain", monkeypatch)
    assert [r.facts["lower"] for r in plain] == [None, None]
    for one, other in zip(fast, plain, strict=True):
        dtype, rows = one.facts["lower"]
        assert (dtype, one.inputs) == (lower, other.inputs)
        assert rows < ROWS
        if not one.facts["dropped"]:
            assert one.facts["proxies"] == other.facts["proxies"]
            assert one.scores == other.scores
    kept = [r for r in fast if not r.facts["dropped"]]
    again = sum(r.facts["lower"][1] for r in kept)
    assert _passes(found, ROWS)["rows"] == sum(r.facts["rows"] for r in fast) + again
    by_rows = {(j["spec"]["stop"], j["spec"].get("dtype", "float32")) for j in jobs if j["verb"] == "features"}
    assert {"fastest", "float32"} == {dtype for _, dtype in by_rows if dtype != lower}
    assert {dtype for stop, dtype in by_rows if stop == ROWS} == {"float32"}


def test_a_bound_is_of_float32(shelf: list[Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, receipts, jobs = ranked(shelf, tmp_path, monkeypatch, "bernstein")
    assert [r.facts["lower"] for r in receipts] == [None, None]
    assert not any("dtype" in j["spec"] for j in jobs)


def test_few_rows_are_not_worth_the_trial(shelf: list[Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.ranking.racing.FAST_FROM", ROWS + 1)
    _, _, jobs = ranked(shelf, tmp_path, monkeypatch)
    assert not any("dtype" in j["spec"] for j in jobs)


def test_without_a_race_all_rows_are_scored_at_once(
    shelf: list[Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, receipts, jobs = ranked(shelf, tmp_path, monkeypatch, "none")
    assert [r.facts["rows"] for r in receipts] == [ROWS, ROWS]
    assert sorted(j["verb"] for j in jobs) == ["features", "features", "fit", "fit", "score", "score"]


def probed(text_model: Source, rows: int = ROWS) -> tuple[str, dict[str, Any]]:
    target = shelves.tickets(rows, told=1.0)
    with opener(text_model) as opened:
        assert opened is not None
        found = backends.fastest(opened, target, target.labelled, RidgeProbe())
        assert not opened.opened._loaded  # one encoder at a time, and none is left over
        return found


def test_the_probe_measures_each_and_leaves_out_what_an_architecture_cannot(
    shelf: list[Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "GAIN", 0.0)
    monkeypatch.setattr(backends, "TOLERANCE", np.inf)
    dtype, told = probed(shelf[0])
    assert set(told["scores"]) == set(told["seconds"]) == {"float32", *FAST}
    assert dtype == min(told["seconds"], key=told["seconds"].get)
    assert all(abs(told["scores"][d] - told["scores"]["float32"]) < 0.2 for d in FAST)

    def lowered(module: Any, dtype: str) -> Any:
        if dtype == "int8":
            raise TypeError("its layers look at their weights")
        return real(module, dtype)

    real = encoders.lowered
    monkeypatch.setattr(encoders, "lowered", lowered)
    _, told = probed(shelf[0])
    assert set(told["seconds"]) == {"float32", "bfloat16"}


def test_nothing_is_measured_where_nothing_is_faster(text_model: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.io.backends.gain", lambda _: 1.5)
    monkeypatch.setattr("headstart.io.exports.installed", lambda: False)
    assert probed(text_model) == ("float32", {})


@pytest.fixture
def eager(shelf: list[Source], monkeypatch: pytest.MonkeyPatch) -> Source:
    """A source whose export is always worth its time, and any arithmetic fast and exact enough."""
    pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")
    pytest.importorskip("onnxscript", reason="needs the extra `onnx`")
    monkeypatch.setattr(backends, "GAIN", 0.0)
    monkeypatch.setattr(backends, "TOLERANCE", np.inf)
    monkeypatch.setattr(backends, "EXPORT_FROM", 0.0)
    return shelf[0]


def test_the_probe_picks_the_fastest_of_all_that_score_as_float32_does(
    eager: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    dtype, told = probed(eager)
    assert set(told["scores"]) == {"float32", *FAST, *EXPORTED}
    assert told["failed"] == {}
    assert dtype == min(told["seconds"], key=told["seconds"].get)
    assert told["scores"]["onnx"] == pytest.approx(told["scores"]["float32"], abs=1e-4)
    assert told["scores"]["onnx-int8"] == pytest.approx(told["scores"]["float32"], abs=0.2)

    monkeypatch.setattr(backends, "EXPORT_FROM", np.inf)
    assert set(EXPORTED) <= set(probed(eager)[1]["seconds"])  # what lies in the cache is tried
    monkeypatch.setattr(exports.Exported, "forward", lambda self, **tensors: exports.Hidden(noise(tensors), ()))
    for tolerance, taken in ((np.inf, True), (0.01, False)):
        moments = accumulate(step for at in range(9999) for step in (0.0, 1e4 - at))  # each later one is faster
        monkeypatch.setattr("headstart.execution.backends.time.perf_counter", moments.__next__)
        monkeypatch.setattr(backends, "TOLERANCE", tolerance)
        dtype, told = probed(eager)
        assert abs(told["scores"]["onnx"] - told["scores"]["float32"]) > 0.01
        assert (dtype in EXPORTED) == taken


def noise(tensors: dict[str, Any]) -> torch.Tensor:
    ids = tensors["input_ids"]
    return torch.randn((*ids.shape, shelves.WIDTH), generator=torch.Generator().manual_seed(int(ids.sum())))


def test_a_source_that_cannot_be_exported_is_read_by_the_others(eager: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    def export(*_: Any) -> None:
        raise KeyError("an operator without a twin")

    monkeypatch.setattr(exports, "_export", export)
    dtype, told = probed(eager)
    assert set(told["seconds"]) == {"float32", *FAST}
    assert dtype in told["seconds"]
    assert set(told["failed"]) == set(EXPORTED)
    assert all("an operator without a twin" in said for said in told["failed"].values())


def test_an_export_that_would_not_pay_is_not_made(eager: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "EXPORT_FROM", 3600.0)
    _, told = probed(eager)
    assert set(told["seconds"]) == {"float32", *FAST}
    assert not exports.export_folder().exists()


@pytest.mark.parametrize(
    ("seconds", "scores", "want"),
    [
        ((1.0, 0.4, 0.2), (0.5, 0.495, 0.5), "int8"),
        ((1.0, 0.4, 0.2), (0.5, 0.495, 0.52), "bfloat16"),
        ((1.0, 0.6, 0.2), (0.5, 0.5, 0.4), "float32"),
        ((1.0, 3.0, 2.0), (0.5, 0.5, 0.5), "float32"),
    ],
)
def test_the_choice(seconds: tuple[float, ...], scores: tuple[float, ...], want: str) -> None:
    names = ("float32", *FAST)
    assert backends.choice(dict(zip(names, seconds, strict=True)), dict(zip(names, scores, strict=True))) == want  # type: ignore[arg-type]


def test_the_gain_of_this_processor_is_a_number() -> None:
    assert gain("float32") == pytest.approx(1.0, abs=0.9)
    assert all(0 <= gain(dtype) < 100 for dtype in FAST)
