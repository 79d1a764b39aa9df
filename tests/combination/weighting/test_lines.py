"""LiNeS by its formula, on a model of four layers and what lies outside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from headstart.combination.merging import merge


@pytest.fixture
def models(tmp_path: Path) -> tuple[Path, Path, Path]:
    draw = np.random.default_rng(0)
    names = [
        "embed.weight",
        *(f"enc.layers.{i}.w" for i in range(4)),
        "dec.layers.0.w",
        "dec.layers.1.w",
        "head.weight",
    ]
    for model in ("base", "one", "two"):
        (tmp_path / model).mkdir()
        tensors = {n: draw.standard_normal((3, 2)).astype(np.float32) for n in names}
        save_file(tensors, tmp_path / model / "model.safetensors")
    return tmp_path / "base", tmp_path / "one", tmp_path / "two"


@pytest.mark.parametrize(("shallow", "first"), [(None, 0.5), (0.2, 0.2)])
def test_the_deeper_a_layer_the_more_of_its_change(
    shallow: float | None, first: float, models: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    base, one, two = models
    made = merge([one, two], "lines", base=base, settings={"shallow": shallow, "rise": 0.6}, out=tmp_path / "out")
    ours, b, x, y = (load_file(f / "model.safetensors") for f in (made.where, base, one, two))
    depths = {"enc.layers.1.w": 1 / 3, "enc.layers.2.w": 2 / 3, "enc.layers.3.w": 1.0, "dec.layers.1.w": 1.0}
    for name, merged in ours.items():
        factor = first + 0.6 * depths.get(name, 0.0)
        np.testing.assert_allclose(merged, b[name] + factor * (x[name] + y[name] - 2 * b[name]), atol=1e-6)


def test_layers_of_stages_follow_each_other(tmp_path: Path) -> None:
    """Of a network in stages the last layer is the last of the last stage, whatever its number there."""
    tune = {"base": 0.0, "one": 1.0}
    places = {"stages.0.layers.0.": 0, "stages.0.layers.1.": 1, "stages.1.down.0.": 2, "stages.1.layers.0.": 2}
    for model, value in tune.items():
        (tmp_path / model).mkdir()
        tensors = {f"{n}w": np.full(4, value, np.float32) for n in places}
        save_file(tensors, tmp_path / model / "model.safetensors")
    models = {"base": tmp_path / "base", "settings": {"shallow": 0.2, "rise": 0.6}}
    made = load_file(merge([tmp_path / "one"], "lines", out=tmp_path / "out", **models).where / "model.safetensors")
    for name, rank in places.items():
        np.testing.assert_allclose(made[f"{name}w"], 0.2 + 0.6 * rank / 2, rtol=1e-6)
