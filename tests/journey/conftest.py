"""Each test has a bank and a cache of its own, and crashes of the process alone need no synced pages."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headstart.core import Source
from journey import shelves


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the user's bank."""
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(os, "fsync", lambda file: None)  # a crash of this process alone loses no written page
    return tmp_path / "home"


@pytest.fixture(scope="session")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return shelves.model(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture(scope="session")
def image_model(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return shelves.model(tmp_path_factory.mktemp("models") / "resnet", "image")


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes long, and is not what the test is about: see `shelves.lighten`."""
    shelves.lighten(monkeypatch)
