"""The starter shelf in the package: whole, small, safe, licensed; and what it is for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from headstart.core import Source
from headstart.demonstration import STARTER
from headstart.io.images import IMAGE, encode
from headstart.io.sources import opened, scan

Array = np.ndarray[Any, Any]
FILES = {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"}
ROWS = 320


@pytest.fixture(scope="module")
def shelf() -> dict[str, Source]:
    sources, failed = scan(STARTER)
    assert failed == []
    return {s.name: s for s in sources}


@pytest.fixture(scope="module")
def images() -> pa.Table:
    held = np.rint(load_digits().images[:ROWS] * (255 / 16)).astype(np.uint8)
    return pa.table({"image": pa.array([{"bytes": encode(image), "path": None} for image in held], IMAGE)})


def features(source: Source, images: pa.Table) -> Array:
    with opened(source) as here:
        found: Array = here.features(images)
    return found


def right(found: Array) -> float:
    """Accuracy of a plain probe: a quarter of the rows to train on, the others to score."""
    labels, train = load_digits().target[:ROWS], np.arange(ROWS) % 4 == 0
    scaled = (found - found[train].mean(0)) / (found[train].std(0) + 1e-3)
    probe = LogisticRegression(C=0.1, max_iter=500).fit(scaled[train], labels[train])
    return float(probe.score(scaled[~train], labels[~train]))


def test_eight_models_of_three_architectures_in_six_megabytes(shelf: dict[str, Source]) -> None:
    assert {s.facts["model_type"] for s in shelf.values()} == {"convnext", "resnet", "vit"}
    assert len(shelf) == len({s.identity for s in shelf.values()}) == 8
    assert sum(path.stat().st_size for path in STARTER.rglob("*")) < 6e6


def test_each_folder_holds_weights_and_words_and_no_code() -> None:
    for folder in sorted(STARTER.iterdir()):
        assert {p.name for p in folder.iterdir()} == FILES


def test_each_card_says_licence_and_training(shelf: dict[str, Source]) -> None:
    for name, source in shelf.items():
        card = (Path(source.where) / "README.md").read_text(encoding="utf-8")
        assert source.licence == "apache-2.0"
        assert f"# {name}" in card
        assert "Trained on: " in card
        assert ("font" in card) == ("rendered" in card)


def test_each_model_loads_in_plain_transformers(shelf: dict[str, Source], images: pa.Table) -> None:
    import torch
    from transformers import AutoModelForImageClassification

    source = shelf["convnext-alphanumerics"]
    model = AutoModelForImageClassification.from_pretrained(source.where).eval()
    pixels = torch.zeros(1, 3, 32, 32)
    with torch.no_grad():
        assert model(pixel_values=pixels).logits.shape == (1, 62)
    assert source.facts["labels"][10] == "a"
    assert json.loads((Path(source.where) / "config.json").read_text())["dtype"] == "float32"


@pytest.mark.parametrize("name", ["convnext-alphanumerics", "resnet-digit-loops", "vit-letters", "vit-untrained"])
def test_features_are_finite_and_differ_between_rows(name: str, shelf: dict[str, Source], images: pa.Table) -> None:
    found = features(shelf[name], images.slice(0, 40))
    assert found.shape == (40, shelf[name].facts["width"])
    assert np.isfinite(found).all()
    assert found.std(axis=0).max() > 0.01


def test_some_are_good_for_digits_some_useless_and_one_misleads(shelf: dict[str, Source], images: pa.Table) -> None:
    pixels = load_digits().data[:ROWS]
    plain = right(pixels)
    good, loops, gratings = (
        right(features(shelf[name], images))
        for name in ("resnet-alphanumerics", "resnet-digit-loops", "resnet-gratings")
    )
    assert good > plain
    assert loops < plain - 0.05, "it was trained on digits, and tells loops only"
    assert gratings < plain - 0.05
