"""What a merge tells of models that are alike: numbers done by hand, on tensors written to disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from combination.test_merge import tensors as stored
from combination.test_merge import write
from headstart.combination import likeness
from headstart.combination.likeness import compared
from headstart.combination.merging import merge, planned

BASE = {"a": torch.zeros(4, 4), "b": torch.ones(4)}


def model(where: Path, *changes: float) -> Path:
    """A fine-tune whose first entries of `a` moved by these."""
    a = torch.zeros(16)
    a[: len(changes)] = torch.tensor(changes)
    return write(where, {"a": a.view(4, 4), "b": torch.ones(4)})


def test_copies_are_told_of_before_they_are_pushed_apart(tmp_path: Path) -> None:
    base, one = write(tmp_path / "base", BASE), model(tmp_path / "one", 1.0, 2.0)
    copy, other = model(tmp_path / "copy", 2.0, 4.0), model(tmp_path / "other", 2.0, -1.0)
    plan = compared(planned([one, copy, other], "tsv_m", base=base))
    assert plan.alike["of"] == "changes"
    assert plan.alike["entries"] == plan.alike["all_entries"] == 20
    assert plan.alike["cosines"] == [[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    assert [w for w in plan.warnings if "alike" in w] == [
        "`one` and `copy` changed alike (cosine 1.000), and `tsv_m` pushes copies apart: leave one out, or merge the "
        "two by `linear` first"
    ]
    made = merge([one, copy, other], "tsv_m", base=base, out=tmp_path / "out")
    told = json.loads((made.where / "merge.json").read_text())
    assert told["facts"]["alike"] == plan.alike
    assert told["warnings"] == list(plan.warnings) == list(made.plan.warnings)
    assert not compared(planned([one, other], "tsv_m", base=base)).warnings
    assert not compared(planned([one], "tsv_m", base=base)).alike


def test_slerp_tells_the_cosine_of_its_models(tmp_path: Path) -> None:
    one, other = model(tmp_path / "one", 2.0), model(tmp_path / "other", 0.0, 2.0)
    plan = compared(planned([one, other], "slerp"))
    assert plan.alike["cosines"][0][1] == 0.5  # 4 entries of 1 in common, lengths of √8
    assert plan.alike["of"] == "weights"
    assert not plan.warnings
    made = merge([one, other], "slerp", out=tmp_path / "out")
    assert made.receipt.facts["alike"] == plan.alike
    assert merge([one, other], out=tmp_path / "mean").receipt.facts["alike"] is None
    assert stored(made.where).keys() == BASE.keys()


def test_of_large_models_the_first_entries_of_every_tensor_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(likeness, "ENTRIES", 6)  # three of each tensor
    one, other = model(tmp_path / "one", 1.0, 0.0, 0.0, 9.0), model(tmp_path / "other", 0.0, 1.0)
    plan = compared(planned([one, other], "slerp"))
    assert (plan.alike["entries"], plan.alike["all_entries"]) == (6, 20)
    assert plan.alike["cosines"][0][1] == 0.75
