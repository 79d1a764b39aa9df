"""Real sets, read without being told anything; what each one is stands in its own `meta.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headstart.inspection import inspect, read_target

DATA = Path(__file__).parents[3] / "shared" / "data"
FORMS = {
    "text": ("text", "single_label"), "pair": ("text", "single_label"), "pair_reg": ("text", "regression"),
    "multilabel": ("text", "multi_label"), "tags": ("text", "tagging"), "image": ("image", "single_label"),
    "tabular": ("table", ""),
}  # fmt: skip
SMALL = ("trec6", "clinc150_small", "id_wrete", "sick_r", "id_casa", "nlupp_banking", "id_nergrit", "wnut17",
         "shape16_edges", "brain_tumor_yesno", "penguins", "titanic", "auto_mpg", "salaries", "wage_islr",
         "tweet_stance_atheism")  # fmt: skip

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the shared data sets are not beside the repository")


def _names() -> list[Any]:
    every = sorted(path.parent.name for path in DATA.glob("*/train.parquet")) if DATA.is_dir() else list(SMALL)
    return [name if name in SMALL else pytest.param(name, marks=pytest.mark.slow) for name in every]


@pytest.mark.parametrize("name", _names())
def test_a_real_set_is_read_as_what_it_is(name: str) -> None:
    meta = json.loads((DATA / name / "meta.json").read_text(encoding="utf-8"))
    target = read_target(DATA / name)
    modality, task = FORMS[meta["form"]]
    task = task or ("single_label" if meta["n_classes"] else "regression")
    assert (target.modality, target.task.type, target.protocol) == (modality, task, "user_test")
    assert len(target.task.classes) == (meta["n_classes"] or 0)
    assert target.task.pair == meta["form"].startswith("pair")
    assert len(target.seal) == meta["rows"]["test"]
    assert not set(target.seal.content) & set(target.labelled.content)
    card = inspect(target)
    assert card["left_out"] == meta["rows"]["train"] - len(target.labelled)
