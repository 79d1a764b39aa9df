"""The benchmark of merges of fine-tunes: what its report makes of a record that is written by hand."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark_files import benchmark_files

ROWS = 1000


@pytest.fixture
def bench() -> Any:
    with benchmark_files() as by_name:
        yield by_name("merge_tasks")


def test_parts_apart_are_held_row_by_row_against_task_arithmetic(
    bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (tmp_path / f"t-{ROWS}-test.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *((f"row {i} of all", f"label {i % 2}") for i in range(ROWS))])
    target = bench._read(tmp_path / f"t-{ROWS}-test.csv")
    assert len(target.seal)  # what is sealed comes last in a merge's rows, and not in those of parts apart
    sides = [target.labelled, target.seal.open()]
    places = [int(text.split()[1]) for s in sides for text in s.inputs.column("text").to_pylist()]
    right = np.random.default_rng(0).random(ROWS) < 0.8
    right[:2] = True, False
    better = right.copy()
    better[np.flatnonzero(~right)[:50]] = True  # 5 points

    def told(hits: Any, order: Any, **more: Any) -> dict[str, Any]:
        return {"test": [float(hits.mean())], "right": ["".join("01"[int(hits[i])] for i in order)], **more}

    record = bench.Record(tmp_path / "record.json")
    half = {"choose": [0.5], "stage": "data-free"}
    for name, hits in (("t", right), ("task_arithmetic (scale=0.3)", right), ("task_arithmetic (scale=0.5)", right)):
        method = {} if name == "t" else {"method": "task_arithmetic"}
        choose = {"choose": [0.6]} if "0.5" in name else {}
        record.put(f"merge/{name}", {"tasks": ["t"]}, told(hits, places, **{**half, **method, **choose}))
    record.put("merge/ties", {"tasks": ["t"]}, told(better, places, **half, method="ties"))
    kept = {"routed": [1.0], "share": 0.5, "seconds": 1.0}
    record.put("apart/surgery", {"tasks": ["t"]}, told(better, range(ROWS), **kept, method="surgery"))
    record.put("apart/emr", {"tasks": ["t"]}, told(right, range(ROWS), **kept, method="emr"))
    bench._report(record, tmp_path, ROWS)
    lines = {line.split(" | ")[0].strip("| "): line for line in capsys.readouterr().out.splitlines()}

    gains = {name: re.findall(r"([+-][\d.]+) \(([+-][\d.]+) to ([+-][\d.]+)\)", line) for name, line in lines.items()}
    assert gains["emr"] == [("+0.0", "+0.0", "+0.0")]  # the same rows are right, whatever their order; not held to 0.3
    # 50 of 1,000 rows are better and none is worse: a binomial of mean 5 and standard error 0.69 points
    assert len(gains["surgery"]) == len(gains["ties"]) == 2
    for mean, low, high in (*gains["surgery"], *gains["ties"]):
        assert mean == "+5.0"
        assert float(low) == pytest.approx(5 - 1.96 * 0.69, abs=0.3)
        assert float(high) == pytest.approx(5 + 1.96 * 0.69, abs=0.3)
    assert "task_arithmetic (scale=0.3)" in lines
