"""Records of runs made elsewhere: all of a file or nothing, once, and never among the bank's own runs."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headstart.core import Measured, Refused, Unfit, Unreadable
from headstart.inventory import Inventory
from headstart.inventory.records import Run, Trial

from .shelves import a_target

HISTORY = Path(__file__).parents[3] / "shared" / "data" / "history"
FILES = ("medmnist_transfer", "parc_all", "parc_controlled", "peft_method_comparison", "prompt_transfer",
         "tllib_model_selection", "transfergraph_records")  # fmt: skip
LONG_FILES = ("taskweb", "transfergraph_img")
COLUMNS = ("target", "source", "method", "metric", "value")
ROWS = [("qnli", "mnli", "finetune", "accuracy", 0.9), ("qnli", "qqp", "finetune", "accuracy", 0.8),
        ("rte", "mnli", "finetune", "accuracy", 0.7), ("rte", "", "finetune", "accuracy", 0.5)]  # fmt: skip


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[Inventory]:
    with Inventory(tmp_path / "bank.db") as opened:
        yield opened


def table(path: Path, rows: Sequence[Sequence[Any]] = ROWS, columns: Sequence[str] = COLUMNS) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",").writerows([columns, *rows])
    return path


def kept(bank: Inventory) -> list[tuple[Any, ...]]:
    assert bank.file is not None
    with sqlite3.connect(bank.file) as raw:
        query = "SELECT origin, target, source, method, metric, value FROM records ORDER BY 1, 2, 3, 4, 5, 6"
        return raw.execute(query).fetchall()


def test_every_form_of_file_says_the_same(bank: Inventory, tmp_path: Path) -> None:
    names = [dict(zip(COLUMNS, row, strict=True)) for row in ROWS]
    table(tmp_path / "a.csv")
    table(tmp_path / "b.tsv")
    (tmp_path / "c.jsonl").write_text("\n".join(json.dumps(row) for row in names))
    pq.write_table(pa.Table.from_pylist(names), tmp_path / "d.parquet")
    for name in ("a.csv", "b.tsv", "c.jsonl", "d.parquet"):
        assert (bank.import_records(tmp_path / name).added, name) == (4, name)
    by_origin = {o: [row[1:] for row in kept(bank) if row[0] == o] for o in "abcd"}
    assert by_origin["a"] == by_origin["b"] == by_origin["c"] == by_origin["d"] == sorted(ROWS)
    assert [(o.name, o.records, o.targets, o.valid) for o in bank.origins()] == [(o, 4, 2, 0) for o in "abcd"]


def test_a_file_again_adds_nothing_and_equal_runs_of_one_file_stay(bank: Inventory, tmp_path: Path) -> None:
    file = table(tmp_path / "runs.csv", [*ROWS, ROWS[0]])
    assert bank.import_records(file).added == 5
    again = bank.import_records(file)
    assert (again.rows, again.added, again.origins) == (5, 0, ("runs",))
    assert bank.import_records(table(tmp_path / "runs.csv", [*ROWS, ROWS[0], ROWS[0]])).added == 1


@pytest.mark.parametrize(
    ("column", "value", "said", "hint"),
    [
        ("value", "", "is empty", "leave the row out"),
        ("value", "nan", "`nan`", "0.913"),
        ("value", "high", "`high`", "0.913"),
        ("target", "", "is empty", "fill it in"),
        ("seed", "1.5", "whole number", "leave it empty"),
        ("split", "dev", "`dev`", "valid, test"),
        ("higher_is_better", "maybe", "`maybe`", "true or false"),
        ("origin", "headstart", "own runs", "another name"),
        ("extra", "{", "not JSON", "epochs"),
        ("extra", "[1]", "is a list", "epochs"),
        ("extra", '{"proxies": {"logme": "good"}}', "finite number", "0.913"),
    ],
)
def test_one_wrong_row_is_named_and_nothing_is_kept(
    bank: Inventory, tmp_path: Path, column: str, value: str, said: str, hint: str
) -> None:
    columns = [*COLUMNS, *(() if column in COLUMNS else (column,))]
    rows = [[*row, *(() if column in COLUMNS else ("",))] for row in ROWS]
    rows[2][columns.index(column)] = value
    with pytest.raises(Unfit, match=said) as wrong:
        bank.import_records(table(tmp_path / "runs.csv", rows, columns))
    assert wrong.value.where.startswith("`runs.csv`, row 3, ")
    assert f"column `{column}`" in wrong.value.where
    assert hint in wrong.value.fix
    assert kept(bank) == []


def test_a_column_that_nobody_knows_or_that_is_missing_is_told(bank: Inventory, tmp_path: Path) -> None:
    with pytest.raises(Unfit, match="`splitt` is no column") as wrong:
        bank.import_records(table(tmp_path / "a.csv", [[*r, "valid"] for r in ROWS], [*COLUMNS, "splitt"]))
    assert "`split`" in wrong.value.fix
    with pytest.raises(Unfit, match="`value` is missing"):
        bank.import_records(table(tmp_path / "b.csv", [r[:4] for r in ROWS], COLUMNS[:4]))
    with pytest.raises(Unfit, match="no rows"):
        bank.import_records(table(tmp_path / "c.csv", []))
    with pytest.raises(Unfit, match="no records of runs"):
        bank.import_records(table(tmp_path / "e.csv", [["where is it", "card"]], ["text", "label"]))
    with pytest.raises(Unreadable, match="no file"):
        bank.import_records(tmp_path / "d.csv")


def test_validation_figures_come_first_and_test_figures_are_told(bank: Inventory, tmp_path: Path) -> None:
    rows = [[*ROWS[0], "test"], [*ROWS[0][:4], 0.6, "valid"], [*ROWS[1], "test"], [*ROWS[2], "test"]]
    bank.import_records(table(tmp_path / "runs.csv", rows, [*COLUMNS, "split"]))
    found = bank.transfers("finetune", "accuracy", origin="runs")
    assert (found.targets, found.sources, found.tests) == (("qnli", "rte"), ("mnli",), ("rte",))
    np.testing.assert_array_equal(found.values, [[0.6], [0.7]])


def test_runs_of_other_settings_are_told_or_left_out(bank: Inventory, tmp_path: Path) -> None:
    def row(target: str, value: float, seed: int, **extra: object) -> list[object]:
        return [target, "mnli", "finetune", "accuracy", value, seed, json.dumps(extra)]

    proxies = [{"logme": 0.1}, {"logme": 0.2}]
    rows = [
        row("rte", 0.2, 0, lr=0.1, proxies=proxies[0]), row("rte", 0.6, 0, lr=0.01), row("rte", 0.7, 1, lr=0.01),
        row("qnli", 0.5, 0, lr=0.01, proxies=proxies[0]), row("qnli", 0.5, 1, lr=0.01, proxies=proxies[1]),
    ]  # fmt: skip
    bank.import_records(table(tmp_path / "runs.csv", rows, [*COLUMNS, "seed", "extra"]))
    both = bank.transfers("finetune", "accuracy", origin="runs")
    assert both.mixed == ("lr",), "neither seeds nor what estimators said are settings"
    np.testing.assert_allclose(both.values, [[0.5], [0.5]])
    one = bank.transfers("finetune", "accuracy", origin="runs", where={"lr": 0.01})
    assert one.mixed == ()
    np.testing.assert_allclose(one.values, [[0.5], [0.65]])
    np.testing.assert_array_equal(one.counts, [[2], [2]])
    with pytest.raises(Refused, match="no record"):
        bank.transfers("finetune", "accuracy", origin="runs", where={"epochs": 3})


def test_direction_is_the_metrics_own_unless_the_row_says(bank: Inventory, tmp_path: Path) -> None:
    rows = [("t", "s", "m", metric, 1.0, said) for metric, said in (("rmse", ""), ("drift", "no"), ("drift2", ""))]
    bank.import_records(table(tmp_path / "r.csv", rows, [*COLUMNS, "higher_is_better"]))
    assert [bank.transfers("m", n, origin="r").sign for n in ("rmse", "drift", "drift2")] == [-1, -1, 1]
    bank.import_records(
        table(tmp_path / "r.csv", [("u", "s", "m", "drift", 1.0, "yes")], [*COLUMNS, "higher_is_better"])
    )
    with pytest.raises(Refused, match="higher is better"):
        bank.transfers("m", "drift", origin="r")


def test_a_nested_object_is_as_good_as_its_text(bank: Inventory, tmp_path: Path) -> None:
    base = dict(zip(COLUMNS, ROWS[0], strict=True))
    nested = [{**base, "extra": {"lr": 0.1, "proxies": {"logme": 0.3}}}, {**base, "extra": {"note": "x"}}]
    (tmp_path / "r.jsonl").write_text("\n".join(json.dumps(row) for row in nested))
    assert bank.import_records(tmp_path / "r.jsonl").added == 2
    for row in nested:
        row["extra"] = json.dumps(row["extra"])
    (tmp_path / "r.jsonl").write_text("\n".join(json.dumps(row) for row in nested))
    assert bank.import_records(tmp_path / "r.jsonl").added == 0


def test_own_runs_and_imported_ones_never_meet(bank: Inventory, tmp_path: Path) -> None:
    target = a_target("rte", train=["a", "b"], test=["c"])
    bank.record_target(target, None)
    trials = [
        Trial(name="p", kind="adaptation.routes", method="finetune", source="s1", valid=Measured(0.9, 0.9, 0.9, 2)),
        Trial(name="q", kind="adaptation.routes", method="lora", source="s1", valid=Measured(0.1, 0.1, 0.1, 2)),
        Trial(name="m", kind="adaptation.baselines", method="majority", valid=Measured(0.5, 0.5, 0.5, 2)),
        Trial(name="w", kind="adaptation.baselines", method="tfidf", valid=Measured(0.6, 0.6, 0.6, 2)),
    ]
    bank.record_run(Run(id="r", target=target.fingerprint), trials=trials)
    bank.import_records(table(tmp_path / "runs.csv", [("rte", "mnli", "finetune", "macro_f1", 0.7)]))
    own = bank.transfers("finetune", "macro_f1", task_type="single_label", modality="text")
    assert (own.targets, own.sources, own.tests) == ((target.fingerprint,), ("s1",), ())
    np.testing.assert_allclose(own.improvement(), [[0.3]])
    other = bank.transfers("finetune", "macro_f1", origin="runs")
    assert (other.targets, other.sources) == (("rte",), ("mnli",))
    for missing in ({"origin": "elsewhere"}, {"modality": "image"}):
        with pytest.raises(Refused, match="no record"):
            bank.transfers("finetune", "macro_f1", **missing)  # type: ignore[arg-type]  # one of the two


@pytest.mark.parametrize("name", [*FILES, *(pytest.param(name, marks=pytest.mark.slow) for name in LONG_FILES)])
def test_a_real_history_is_imported_unchanged(bank: Inventory, name: str) -> None:
    file = HISTORY / f"{name}.csv"
    if not file.is_file():
        pytest.skip("needs the histories beside the repository")
    with file.open(encoding="utf-8", newline="") as held:
        rows = list(csv.DictReader(held))
    wanted = sorted((r["origin"], r["target"], r["source"], r["method"], r["metric"], float(r["value"])) for r in rows)
    assert bank.import_records(file).added == len(rows)
    assert kept(bank) == wanted
    assert bank.import_records(file).added == 0
