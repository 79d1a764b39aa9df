"""Merges that read rows: other files, tiles and threads, and a stop and a restart change no bit; and models that are
the base give the base, but where a merge trains on from there.
"""

from __future__ import annotations

import csv
import random
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import headstart as hs
from combination.models import LABELS, save
from headstart import catalogue
from headstart.combination.merging import READ_ROWS, carried_out, planned, with_rows
from headstart.core import Target
from headstart.io import shards
from headstart.numerics import stream
from headstart.numerics.stream import Stopped
from tiny_models import WORDS

STEPS = 2
TRAINED = {"atm", "cold_fusion", "forkmerge"}  # bodies; what these make of copies of the base is trained from there
TRAINED_HEADS = {"tint"}
METHODS = [
    pytest.param(name, id=f"{kind.removeprefix('combination.')}.{name}")
    for kind in READ_ROWS
    for name, entry in catalogue.entries(kind).items()
    if not catalogue.missing(entry)
]
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Models:
    """base, tuned: folders. rows: a target for each fine-tune, by its name."""

    base: Path
    tuned: list[Path]
    rows: Mapping[str, Target]


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Two bodies a little away from a base, with heads of their own, and a few rows of each."""
    folder, draw = tmp_path_factory.mktemp("family"), random.Random(0)
    base, tuned, rows = save(folder / "base", "bert"), [], {}
    for name in ("one", "two"):
        tuned.append(shutil.copytree(base, folder / name))
        g = torch.Generator().manual_seed(len(tuned))
        weights = load_file(base / "model.safetensors")
        moved = {n: w + 0.05 * torch.randn(w.shape, generator=g) for n, w in weights.items()}
        save_file(moved, tuned[-1] / "model.safetensors", metadata={"format": "pt"})
        rows[name] = target(folder / f"{name}.csv", name, draw)
    return Models(base, tuned, rows)


def target(path: Path, name: str, draw: random.Random) -> Target:
    texts = [(" ".join(draw.choices(WORDS, k=draw.randint(3, 6))), LABELS[i % 3]) for i in range(24)]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *texts])
    return hs.read_target(path, label="label", name=name)


def merged(family: Models, method: str, out: Path, **how: Any) -> Path:
    """Learned for two steps, and written."""
    plan = planned(family.tuned, method, base=family.base, heads="separate")
    return carried_out(with_rows(plan, family.rows, rows=8, steps=STEPS), out, **how).where


def tensors(folder: Path) -> Tensors:
    """All that a merge wrote, by folder and name, whatever file holds it."""
    return {
        f"{file.parent.relative_to(folder)} {name}": tensor
        for file in sorted(folder.rglob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }


def same(found: Tensors, wanted: Tensors) -> None:
    assert found.keys() == wanted.keys()
    assert [n for n, w in wanted.items() if not torch.equal(found[n].view(torch.uint8), w.view(torch.uint8))] == []


@pytest.mark.parametrize("method", METHODS)
def test_files_tiles_threads_and_a_restart_change_no_bit(
    family: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    wanted = tensors(merged(family, method, tmp_path / "plain", threads=1))
    monkeypatch.setattr(stream, "run", partial(stream.run, tile=97))
    monkeypatch.setattr(shards, "FLUSH_BYTES", 1)  # else so few bytes would all be done again
    other = {"shard_bytes": 3_000, "threads": 3}
    begun: list[float] = []

    def note(done: int, total: int) -> bool:
        begun.append(done / total)
        return True

    with pytest.raises(Stopped):
        merged(family, method, tmp_path / "other", report=lambda done, total: done < 0.7 * total, **other)
    found = tensors(merged(family, method, tmp_path / "other", report=note, **other))
    assert begun[0] > 0.3, "it goes on"
    same(found, wanted)


@pytest.mark.parametrize("method", METHODS)
def test_models_that_are_the_base_give_it(family: Models, tmp_path: Path, method: str) -> None:
    """Bodies, with all that is kept apart for a task; heads are the models' own."""
    copies = [shutil.copytree(family.base, tmp_path / name) for name in family.rows]
    out = merged(Models(family.base, copies, family.rows), method, tmp_path / "out")
    base = load_file(family.base / "model.safetensors")
    body = {n for n in base if not n.startswith("classifier")}
    for name in family.rows:
        found = {n: t for f in (out / name).glob("*.safetensors") for n, t in load_file(f).items()}
        assert found.keys() == base.keys()
        for tensor in body if method in TRAINED else base:
            if method in TRAINED:  # the first round merges the models, and the next ones go on from there
                torch.testing.assert_close(found[tensor], base[tensor], rtol=0, atol=1e-3)
            else:
                torch.testing.assert_close(found[tensor], base[tensor], rtol=2**-23, atol=0)
    for file in sorted((out / "routing").glob("expert-*")) if (out / "routing").exists() else []:
        changed = {n for n, t in load_file(file).items() if t.is_floating_point() and bool(t.any())}
        assert not changed or method in TRAINED_HEADS, changed
        assert not any(n.startswith("bert") for n in changed)
