"""What stages were expected to take stands beside what they took."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headstart.core import Source
from journey import shelves

pytestmark = pytest.mark.usefixtures("light")


def stages(out: Path) -> dict[str, tuple[float | None, float]]:
    told = json.loads((out / "report.json").read_text(encoding="utf-8"))["stages"]
    return {s["stage"]: (s["forecast_seconds"], s["seconds"]) for s in told}


def decided(out: Path) -> dict[str, float]:
    lines = [line for line in shelves.journal(out) if line["event"] == "decision"]
    return {line["name"]: line["value"] for line in lines if line["name"].startswith("forecast of ")}


def test_a_race_forecasts_its_features_from_the_first_rung(tmp_path: Path, text_model: Source) -> None:
    target = shelves.tickets(300, 60, told=1.0)
    shelf = [shelves.fill(target, s, shelves.noise(s)) for s in (shelves.named(text_model, n) for n in "ab")]
    shelves.solved(target, shelf, tmp_path / "out")
    forecast, bill = stages(tmp_path / "out")["features"]
    first = next(
        line for line in shelves.journal(tmp_path / "out") if line["event"] == "barrier" and line["stage"] == "features"
    )
    assert forecast == pytest.approx(first["seconds"] * 300 / 128)
    assert bill >= first["seconds"]
    assert decided(tmp_path / "out")["forecast of features"] == forecast


def test_outer_folds_repeat_what_the_root_took(tmp_path: Path, text_model: Source) -> None:
    target = shelves.tickets(60, 0, told=1.0)
    source = shelves.named(text_model, "a")
    shelves.solved(target, [shelves.fill(target, source, shelves.noise(source))], tmp_path / "out")
    found = stages(tmp_path / "out")
    for stage in ("baselines", "rank", "refit"):
        forecast, bill = found[stage]
        assert forecast is not None
        assert 0 < forecast < 100 * bill
    assert found["features"][0] is None, "all rows at once: nothing to forecast from"
