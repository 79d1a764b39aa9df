"""Targets, and shelves whose sources are tables of features that lie in the cache: no model runs.

A shelf is one tiny model, named several times: each source has an identity of its own, and features that follow from
that identity and the row. So a source can be pure noise, or as good as one likes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import headstart as hs
import tiny_models
from headstart import catalogue
from headstart.core import Budget, Result, Rows, Source, Target
from headstart.execution.specs import chunk_key, chunks
from headstart.execution.views import drawn
from headstart.io import sources as io_sources
from headstart.io.cache import Cache
from headstart.io.places import cache_folder

WIDTH = 8
BACKEND = {"text": "torch-float32-3", "image": "torch-float32+pil-3"}
Array = np.ndarray[Any, Any]
Features = Callable[[Rows], Array]


def draws(*what: object) -> np.random.Generator:
    """Numbers that follow from names."""
    return np.random.default_rng(list(sha256("\n".join(map(str, what)).encode()).digest()[:16]))


def texts(rows: int, *, classes: int = 2, seed: int = 0, told: float = 0.0) -> pa.Table:
    """Texts of random words, all different; told: the fraction in which a word says the class."""
    rng = draws("texts", seed, rows, classes)
    labels = rng.permutation(np.arange(rows) % classes)
    held = []
    for at, label in enumerate(labels):
        words = rng.choice(tiny_models.WORDS[:20], 6).tolist()
        if rng.random() < told:
            words.insert(int(rng.integers(7)), tiny_models.WORDS[20 + label])
        held.append(" ".join([*words, f"n{seed}x{at}"]))
    return pa.table({"text": held, "label": [f"class {c}" for c in labels]})


def tickets(
    rows: int = 60, test: int = 60, *, classes: int = 2, told: float = 0.0, seed: int = 0, **more: Any
) -> Target:
    """Texts with a test of one's own; test=0: outer cross-validation."""
    both = texts(rows + test, classes=classes, seed=seed, told=told)
    given = {"label": "label", "text": "text", "name": "tickets", **more}
    return hs.read_target(both.slice(0, rows), **given, **({"test": both.slice(rows)} if test else {}))


def sealed_rows(target: Target) -> Rows:
    """The rows behind the seal, for a fixture that must know them; the seal counts nothing."""
    return target.seal._rows()


def model(folder: Path, modality: str = "text") -> Source:
    """The tiny model that all sources of a shelf are names of."""
    if modality == "text":
        tiny_models.save_model(folder, "bert", hidden_size=WIDTH, num_hidden_layers=1)
    else:
        tiny_models.save_model(folder, "resnet", embedding_size=4, hidden_sizes=[4, WIDTH])
    (found,), _ = io_sources.scan(folder)
    return found


def named(base: Source, name: str, **fields: Any) -> Source:
    """The same folder as another source: a cached table, which gives features and nothing else."""
    prints = {what: sha256(f"{what} {name}".encode()).hexdigest() for what in ("identity", "weights")}
    return dataclasses.replace(base, **{"name": name, **prints, "gives": ("features",), **fields})


def noise(source: Source) -> Features:
    """Features that follow from the row's content alone: the source knows nothing of the labels."""
    return lambda rows: np.stack([draws(source.identity, c).normal(size=WIDTH) for c in rows.content])


def signal(source: Source, strength: float = 3.0) -> Features:
    """Noise, with the labels in it."""

    def features(rows: Rows) -> Array:
        assert rows.labels is not None
        centres = draws("centres").normal(size=(8, WIDTH)) / np.sqrt(WIDTH)
        told = centres[rows.labels] if rows.labels.dtype.kind == "i" else rows.labels[:, None] * centres[0]
        return np.asarray(noise(source)(rows) + strength * told)

    return features


def fill(target: Target, source: Source, features: Features) -> Source:
    """Put a source's features of a target's rows into the cache, in the chunks that a run will ask for."""
    cache = Cache(cache_folder())
    for rows in (drawn(target), sealed_rows(target)):
        if len(rows):
            values = features(rows).astype(np.float32)
            for start, stop in chunks(0, len(rows), len(rows)):
                key = chunk_key(source.identity, BACKEND[target.modality], rows.ids[start:stop])
                cache.put(key, values[start:stop])
    return source


def cheap_baselines(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Of the no-transfer systems these and the majority alone, where the others would only take time."""
    every = catalogue.entries

    def some(kind: str) -> dict[str, catalogue.Entry]:
        found = every(kind)
        kept = {"majority", *names} if kind == "adaptation.baselines" else set(found)
        return {name: entry for name, entry in found.items() if name in kept}

    monkeypatch.setattr(catalogue, "entries", some)


def lighten(monkeypatch: pytest.MonkeyPatch, *, draw: bool = False) -> None:
    """No estimators beside the probe, one cheap baseline beside the majority for each modality, and nothing drawn."""
    cheap_baselines(monkeypatch, "word_char_tfidf", "pixel_logistic", "column_linear")
    monkeypatch.setattr("headstart.ranking.racing.race.__defaults__", ((),))
    for name in () if draw else ("render", "card"):
        monkeypatch.setattr(f"headstart.evidence.report.{name}", lambda data, **more: "drawn")


def solved(target: Target, shelf: list[Source] | None, out: Path, inventory: Any = None, **more: Any) -> Result:
    """A solve in this process, without a clock: as many trials as there are sources, so that nothing is trained."""
    trials = max(1, len(shelf or ()))
    given: dict[str, Any] = {"budget": Budget(trials=trials), "executor": "in_process", "show": "none", **more}
    return hs.solve(target, inventory, given.pop("budget"), out=out, sources=shelf, **given)


def journal(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "run" / "journal.jsonl").read_text().splitlines()]


def prices(rows: int = 60, test: int = 40, seed: int = 0, **more: Any) -> Target:
    """Numbers to predict from columns: no source reads such, and no worker loads torch."""
    x = draws("prices", seed).normal(size=(rows + test, 3))
    both = pa.table({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "price": 3 * x[:, 0] - x[:, 1] + 0.1 * x[:, 2]})
    given = {"label": "price", "name": "prices", **more}
    return hs.read_target(both.slice(0, rows), **given, **({"test": both.slice(rows)} if test else {}))


def labels_for(kind: str, rows: int, seed: int = 0) -> pa.Array:
    """A column of labels of a task type, such as `read_target` finds it in a table."""
    rng = draws("labels", kind, seed)
    if kind == "regression":
        return pa.array(rng.normal(size=rows))
    if kind == "multi_label":
        return pa.array(
            [sorted({"red", "big", "old"} - {w}) if w else ["red"] for w in rng.choice(["red", "old", ""], rows)]
        )
    return pa.array([f"class {c}" for c in rng.permutation(np.arange(rows) % 2)])


def pictures(rows: int = 60, test: int = 40, *, kind: str = "single_label", seed: int = 0, **more: Any) -> Target:
    """Small pictures of noise, brighter on one side."""
    from io import BytesIO

    from PIL import Image

    rng = draws("pictures", seed)
    labels = labels_for(kind, rows + test, seed)
    held = []
    for _ in range(rows + test):
        file = BytesIO()
        Image.fromarray(rng.integers(0, 255, (12, 12, 3), dtype=np.uint8)).save(file, "PNG")
        held.append({"bytes": file.getvalue(), "path": None})
    image = pa.array(held, type=pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    both = pa.table({"image": image, "label": labels})
    given = {"label": "label", "image": "image", "name": "pictures", "task": kind, **more}
    return hs.read_target(both.slice(0, rows), **given, **({"test": both.slice(rows)} if test else {}))
