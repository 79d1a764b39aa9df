"""Encoders in ONNX Runtime: as transformers in float32, exported once, whole or not at all."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from headstart.core import Refused, Source
from headstart.io import exports, sources
from headstart.io.layers import taps
from tiny_models import texts

pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")
pytest.importorskip("onnxscript", reason="needs the extra `onnx`")

Shelf = Callable[..., Path]
POOLINGS = {
    "cls": lambda hidden: hidden[0],
    "lasttoken": lambda hidden: hidden[-1],
    "max": lambda hidden: hidden.max(axis=0),
    "mean": lambda hidden: hidden.mean(axis=0),
    "weightedmean": lambda hidden: np.average(hidden, axis=0, weights=np.arange(1, len(hidden) + 1)),
}


def source_of(folder: Path) -> Source:
    (source,), failed = sources.scan(folder)
    assert not failed
    return source


@pytest.fixture(scope="module")
def made(shelf: Shelf, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the export of the tiny encoder, in float32 and int8; tests copy it."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch, sources.opened(source_of(shelf("bert"))) as here:
        patch.setenv("HEADSTART_HOME", str(home))
        here.features(texts(2), dtype="onnx")
        here.features(texts(2), dtype="onnx-int8")
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path / "home")
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def kept(home: Path) -> list[Path]:
    return sorted((home / "cache" / "exports").iterdir())


def bare_loop(folder: Path, rows: pa.Table) -> list[tuple[Any, ...]]:
    """The hidden states of one text at a time, without padding, by transformers."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    found = []
    for text in rows["text"].to_pylist():
        with torch.no_grad():
            out = model(**tokenizer(text, truncation=True, return_tensors="pt"), output_hidden_states=True)
        found.append(tuple(one[0].numpy() for one in out.hidden_states))
    return found


def test_all_layers_and_poolings_are_those_of_transformers(shelf: Shelf, home: Path) -> None:
    lengths = (1, 2, 7, 19, 30, 60)  # the longest is cut, and all but it are padded somewhere
    rows = pa.table({"text": [" ".join(["the old cat"] * 20).rsplit(" ", 60 - n)[0] for n in lengths]})
    expected = bare_loop(shelf("bert"), rows)
    source = source_of(shelf("bert"))
    with sources.opened(source) as here:
        asked = taps(source, here.recipe, "all", tuple(POOLINGS))
        for threads in (1, 2):
            found = here.tapped(rows, asked, dtype="onnx", threads=threads)
            for tap, one in zip(asked, found, strict=True):
                layer = tap.facts["tap"]["layer"] if "tap" in tap.facts else -1
                mode = tap.facts["tap"]["pooling"] if "tap" in tap.facts else "mean"
                told = np.stack([POOLINGS[mode](states[layer]) for states in expected])
                np.testing.assert_allclose(one, told, rtol=1e-4, atol=1e-5, err_msg=tap.name)
        alone = here.features(rows.slice(2, 1), dtype="onnx")
        np.testing.assert_allclose(alone, here.features(rows.slice(2, 1)), rtol=1e-4, atol=1e-5)
        pairs = pa.table({"text": ["the cat", "a"], "text_pair": ["is old", "hill under the house"]})
        np.testing.assert_allclose(here.features(pairs, dtype="onnx"), here.features(pairs), rtol=1e-4, atol=1e-5)
        assert here.features(rows.slice(0, 0), dtype="onnx").shape == (0, 16)
        assert 0 < here.fidelity(rows, dtype="onnx") < 1e-5 < here.fidelity(rows, dtype="onnx-int8") < 0.1
        assert len({here.backend("float32"), here.backend("onnx"), here.backend("onnx-int8")}) == 3


@pytest.mark.slow
@pytest.mark.parametrize("model", ["roberta", "distilbert", "mpnet", "deberta-v2", "electra", "albert"])
def test_other_architectures_are_exported_too(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path))
    rows = texts(9)
    with sources.opened(source_of(shelf(model))) as here:
        np.testing.assert_allclose(here.features(rows, dtype="onnx"), here.features(rows), rtol=1e-4, atol=1e-5)
        assert here.fidelity(rows, dtype="onnx-int8") < 0.1


def never(*_: Any) -> None:
    raise AssertionError("the export is made again")


def test_an_export_is_made_once(shelf: Shelf, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "_make", never)
    source = source_of(shelf("bert"))
    with sources.opened(source) as here:
        assert here.is_exported()
        tap = taps(source, here.recipe, [1], ["cls"])[1]
        assert np.isfinite(here.features(texts(3), dtype="onnx-int8")).all()
    with sources.opened(tap) as here:  # a layer of it, which another process scores
        assert here.is_exported()
        assert np.isfinite(here.features(texts(3), dtype="onnx")).all()
    with sources.opened(source_of(shelf("bert", seed=1))) as here:
        assert not here.is_exported()


def copied(home: Path) -> Callable[..., None]:
    """In place of an export: that of the tiny encoder, whatever is asked for."""
    held = home.parent / "held"
    shutil.copytree(next(p for p in kept(home) if not p.name.endswith("-int8")), held)

    def export(module: Any, example: Mapping[str, Any], file: Path) -> None:
        shutil.copytree(held, file.parent, dirs_exist_ok=True)

    return export


def test_an_export_that_differs_is_refused_and_not_kept(
    shelf: Shelf, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "_export", copied(home))
    before = kept(home)
    with sources.opened(source_of(shelf("bert", seed=1))) as here:
        for dtype in ("onnx", "onnx-int8"):
            with pytest.raises(Refused, match="is off by"):
                here.features(texts(3), dtype=dtype)  # type: ignore[arg-type]  # one of the two
        assert np.isfinite(here.features(texts(3))).all()
    assert kept(home) == before


def test_a_damaged_export_is_removed_and_made_anew(shelf: Shelf, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "_export", copied(home))
    place = next(p for p in kept(home) if not p.name.endswith("-int8"))
    (place / exports.FILE).write_bytes((place / exports.FILE).read_bytes()[:1000])
    rows = texts(3)
    with sources.opened(source_of(shelf("bert"))) as here:
        with pytest.raises(Refused, match="cannot be run"):
            here.features(rows, dtype="onnx")
        assert place not in kept(home)
        np.testing.assert_allclose(here.features(rows, dtype="onnx"), here.features(rows), rtol=1e-4, atol=1e-5)


KILLED = """
import os, signal, sys
import pyarrow as pa
from headstart.io import exports, sources

def killed(module, example, file):
    file.write_bytes(b"half of it")
    os.kill(os.getpid(), signal.SIGKILL)

exports._export = killed
(source,), _ = sources.scan(sys.argv[1])
with sources.opened(source) as here:
    here.features(pa.table({"text": ["the cat"]}), dtype="onnx")
"""


def test_a_killed_export_leaves_nothing_that_is_taken_for_one(
    shelf: Shelf, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = copied(home)
    shutil.rmtree(home / "cache")
    done = subprocess.run([sys.executable, "-c", KILLED, str(shelf("bert"))], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (unfinished,) = kept(home)
    assert [p.name for p in unfinished.iterdir()] == [exports.FILE]
    with sources.opened(source_of(shelf("bert"))) as here:
        assert not here.is_exported()
        os.utime(unfinished, (1.0, 1.0))  # long ago: its writer is gone
        monkeypatch.setattr(exports, "_export", export)
        assert np.isfinite(here.features(texts(3), dtype="onnx")).all()
    (whole,) = kept(home)
    assert not whole.name.startswith(".")


def test_what_was_not_used_for_longest_makes_room(shelf: Shelf, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export = copied(home)
    exact, small = sorted(kept(home), key=lambda p: len(p.name))
    size = sum(p.stat().st_size for p in small.iterdir())
    os.utime(exact, (1.0, 1.0))
    monkeypatch.setattr(exports, "_export", export)
    monkeypatch.setattr(exports, "_compare", lambda *_: None)
    monkeypatch.setattr(exports, "EXPORT_BYTES", size)
    with sources.opened(source_of(shelf("bert", seed=1))) as here:
        here.features(texts(3), dtype="onnx")
    assert exact not in kept(home)
    assert small in kept(home)


def test_without_the_extra_there_is_no_such_backend(shelf: Shelf, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "installed", lambda: False)
    with sources.opened(source_of(shelf("bert"))) as here:
        assert here.exports() == ()
        with pytest.raises(Refused, match=r"headstart\[onnx\]"):
            here.features(texts(3), dtype="onnx")


def test_images_have_no_such_backend(shelf: Shelf) -> None:
    with sources.opened(source_of(shelf("vit"))) as here:
        assert here.exports() == ()
