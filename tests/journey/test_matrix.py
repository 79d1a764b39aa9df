"""Each task × input × method gives predictions, or is refused with a reason before anything is spent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import headstart as hs
from headstart import adaptation, catalogue, execution
from headstart.core import Budget, Refused, Source, Target
from headstart.execution.parts import System, part_of, tried
from headstart.execution.words import starts_of_words
from headstart.numerics.ragged import places
from journey import shelves

TASKS = ("single_label", "regression", "multi_label", "tagging", "pairs")
WORKS = {"single_label", "regression"}  # in solve, all the way
METHODS = [(kind, name) for kind in ("adaptation.baselines", "adaptation.routes") for name in catalogue.entries(kind)]


def target_of(task: str, modality: str, rows: int = 15) -> Target | None:
    """A small target of its kind; None where there is no such input, as a table of tags."""
    given = {"label": "label", "name": f"{task} {modality}"}
    if task in ("tagging", "pairs") and modality != "text":
        return None
    if task == "tagging":
        some = [(["the", "cat"], ["O", "B-X"]), (["an", "old", "dog"], ["O", "O", "B-X"]), (["here", "it"], ["O", "O"])]
        both = [some[n % 3] for n in range(rows)]
        table = pa.table({"text": [tokens for tokens, _ in both], "label": [tags for _, tags in both]})
        return hs.read_target(table, text="text", **given)
    table = shelves.texts(rows)
    if task == "pairs":
        return hs.read_target(table.append_column("other", table["text"].take(pa.array(range(rows)[::-1]))),
                              pair="text,other", **given)  # fmt: skip
    labels = shelves.labels_for(task, rows)
    if modality == "image":
        return shelves.pictures(rows, 10, kind=task)
    if modality == "text":
        return hs.read_target(table.set_column(1, "label", labels), text="text", task=task, **given)
    columns = {"a": shelves.draws("a").normal(size=rows), "b": ["x", "y", "z"] * (rows // 3), "label": labels}
    return hs.read_target(pa.table(columns), task=task, **given)


@pytest.mark.parametrize("modality", ["text", "image", "table"])
@pytest.mark.parametrize("task", TASKS)
def test_each_method_fits_or_says_why_not(
    tmp_path: Path, task: str, modality: str, text_model: Source, image_model: Source
) -> None:
    target = target_of(task, modality)
    if target is None:
        return
    source = image_model if modality == "image" else text_model
    fitted = 0
    with execution.begin(tmp_path, Budget(), inputs={}, executor="in_process", show="none") as run:
        part = part_of(run, target, "root", tmp_path / "cache")
        for kind, name in METHODS:
            needs = catalogue.entry(kind, name).needs
            used = (source,) if needs.gives else ()
            if reason := catalogue.refusal(needs, used, target):
                assert len(reason) > 15, (name, reason)
                continue
            system = System(kind=kind, method=name, source=source if used else None)
            steps = {"horizon": 2} if needs.gives else None
            trial = tried(part, system, adaptation.fit(part, [system], [(0, 0)], run, "matrix", steps=steps))
            assert trial.usable, (name, trial.error)
            held = trial.cells()[0][places(starts_of_words(target), target.folds.sides(0, 0)[1])]
            assert held.shape[1] == target.task.outputs
            assert np.isfinite(held).all(), name
            fitted += 1
    least = {"single_label": 3, "regression": 3, "multi_label": 3, "tagging": 1, "pairs": 0}
    assert fitted >= least[task] - (modality == "table")


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize("modality", ["text", "image", "table"])
@pytest.mark.parametrize("task", TASKS)
def test_solve_gives_a_result_or_refuses(
    tmp_path: Path, task: str, modality: str, text_model: Source, image_model: Source
) -> None:
    target = target_of(task, modality)
    if target is None:
        return
    shelf = [image_model if modality == "image" else text_model]
    if task in WORKS:
        result = shelves.solved(target, shelf, tmp_path / "out")
        assert result.verdict in ("helps", "no-evidence", "hurts")
        assert result.summary["protocol"] == ("user_test" if modality == "image" else "outer_cv")
        assert (result.summary["candidate"] is None) is (modality == "table")
        return
    with pytest.raises(Refused) as refused:
        shelves.solved(target, shelf, tmp_path / "out")
    assert task.replace("_", "-").removesuffix("s") in refused.value.what
    assert not (tmp_path / "out").exists()
