"""Models by hub name, from a folder laid out as the hub's cache; the network is never asked here."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from headstart.core import Unfit, Unreadable
from headstart.io import sources
from headstart.io.hub import fetched

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(shelf: Callable[..., Path], tmp_path: Path) -> Path:
    """A hub cache that holds `org/tiny`, with `main` at one revision."""
    home = tmp_path / "hub" / "models--org--tiny"
    snapshot = home / "snapshots" / REVISION
    for folder in (snapshot, home / "blobs", home / "refs"):
        folder.mkdir(parents=True)
    (home / "refs" / "main").write_text(REVISION)
    for path in shelf("bert").iterdir():
        blob = path.name.encode().hex()
        shutil.copy(path, home / "blobs" / blob)
        (snapshot / path.name).symlink_to(f"../../blobs/{blob}")
    return tmp_path / "hub"


@pytest.mark.parametrize("origin", ["hub:org/tiny", "hub:org/tiny@main", f"hub:org/tiny@{REVISION}"])
def test_a_cached_model_is_found_offline(cache: Path, origin: str) -> None:
    folder = fetched(origin, cache=cache, offline=True)
    assert folder.name == REVISION
    (source,), failed = sources.scan(folder)
    assert not failed
    assert source.name == "org/tiny"


def test_scan_reads_hub_names(cache: Path, shelf: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    (source,), failed = sources.scan("hub:org/tiny@main")
    assert not failed
    assert (source.name, source.origin) == ("org/tiny", "hub:org/tiny@main")
    assert source.weights == sources.scan(shelf("bert"))[0][0].weights


def test_offline_the_message_says_how_to_provide_the_folder(cache: Path) -> None:
    with pytest.raises(Unreadable) as caught:
        fetched("hub:org/other@v2", cache=cache, offline=True)
    assert "hf download org/other --revision v2" in caught.value.fix


def test_a_model_that_is_not_there_is_listed_and_not_raised() -> None:
    found, failed = sources.scan("hub:org/surely-not-in-any-cache")
    assert not found
    assert failed[0][0] == "hub:org/surely-not-in-any-cache"
    assert isinstance(failed[0][1], Unreadable)


@pytest.mark.parametrize(
    "origin", ["hub:", "hub:../../etc", "hub:a/b/c", "hub:org/na me", "hub:org/x@../y", "hub:org/x;rm", "hub:-x/y"]
)
def test_names_that_are_none_are_unfit(origin: str) -> None:
    with pytest.raises(Unfit):
        fetched(origin, offline=True)
