"""Results with adapted sources: nothing outside the folder is needed, and a base used twice is stored once."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from headstart.core import Columns, Receipt, Task
from headstart.io import results, sources
from headstart.numerics.artifacts import Head, Table
from headstart.numerics.steps import constant
from tiny_models import save_model, texts

TASK = Task(type="single_label", classes=("no", "perhaps", "yes"))


def head(seed: int) -> Head:
    draw = np.random.default_rng(seed)
    return Head(draw.normal(size=(3, 16)).astype(np.float32), draw.normal(size=3).astype(np.float32))


def test_members_that_share_a_base_predict_without_the_shelf(tmp_path: Path) -> None:
    (source,), _ = sources.scan(save_model(tmp_path / "shelf" / "one", "bert"))
    rows, weights = texts(5), (0.5, 0.3, 0.2)
    with sources.opened(source) as here:
        features = here.features(rows)
    flat = Table((constant(np.array([0.2, 0.3, 0.5])),))
    wanted = 0.5 * head(0)(features) + 0.3 * head(1)(features) + 0.2 * np.array([[0.2, 0.3, 0.5]])
    folder = results.write(
        tmp_path / "out",
        members=[
            results.Member(artifact=head(0), weight=weights[0], name="a", source=source),
            results.Member(artifact=head(1), weight=weights[1], name="b", source=source),
            results.Member(artifact=flat, weight=weights[2], name="c"),
        ],
        task=TASK,
        modality="text",
        metric="macro_f1",
        columns=Columns(label="y", text=("text",)),
        receipt=Receipt(step="solve", method="greedy_ensemble"),
    )
    assert len(list(folder.rglob("model*.safetensors"))) == 1
    shutil.rmtree(tmp_path / "shelf")
    shutil.move(folder, tmp_path / "moved")
    saved = results.read(tmp_path / "moved")
    np.testing.assert_allclose(saved.predict_rows(rows), wanted, atol=1e-5)  # float32 features
    assert saved.meta["members"][0]["source"]["weights"] == source.weights


def test_one_member_keeps_its_encoder_in_its_own_folder(tmp_path: Path) -> None:
    (source,), _ = sources.scan(save_model(tmp_path / "shelf" / "one", "bert"))
    rows = texts(3)
    with sources.opened(source) as here:
        wanted = head(0)(here.features(rows))
    folder = results.write(
        tmp_path / "out",
        members=[results.Member(artifact=head(0), name="a", source=source)],
        task=TASK,
        modality="text",
        metric="macro_f1",
        columns=Columns(label="y", text=("text",)),
        receipt=Receipt(step="solve", method="linear_probe"),
    )
    assert not (folder / "bases").exists()
    np.testing.assert_allclose(results.read(folder).predict_rows(rows), wanted, atol=1e-5)  # float32 features
