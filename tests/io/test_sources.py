"""What a shelf holds, and what is refused before anything is loaded; bad folders made by hand."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headstart.core import Refused, Unreadable
from headstart.io.sources import scan
from tiny_models import save_model

Shelf = Callable[..., Path]


def copied(folder: Path, place: Path) -> Path:
    shutil.copytree(folder, place)
    return place


def edited(folder: Path, name: str, **changes: Any) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def only_problem(folder: Path) -> Any:
    sources, failed = scan(folder)
    assert not sources
    assert len(failed) == 1
    return failed[0][1]


def test_a_text_checkpoint_is_described(shelf: Shelf) -> None:
    (source,), failed = scan(shelf("bert"))
    assert not failed
    assert (source.kind, source.modality, source.gives) == ("checkpoint", "text", ("features", "gradients", "weights"))
    facts = source.facts
    assert (facts["width"], facts["layers"], facts["pooling"], facts["max_length"]) == (16, 2, "mean", 32)
    assert facts["labels"] is None
    assert facts["bytes"] == 4 * facts["parameters"]
    json.dumps(dict(facts))


def test_a_stored_head_gives_predictions_and_features_of_the_first_token(shelf: Shelf) -> None:
    (source,), _ = scan(shelf("bert", head=True))
    assert source.gives == ("features", "gradients", "weights", "predictions")
    assert source.facts["labels"] == ["low", "mid", "high"]
    assert source.facts["pooling"] == "cls"


def test_an_image_checkpoint_is_described(shelf: Shelf) -> None:
    (source,), _ = scan(shelf("resnet"))
    assert (source.modality, source.facts["width"], source.facts["layers"]) == ("image", 12, 3)
    assert source.facts["preprocessing"]["image_mean"] == [0.5, 0.5, 0.5]


def test_one_bad_folder_costs_the_others_nothing(shelf: Shelf, tmp_path: Path) -> None:
    copied(shelf("bert"), tmp_path / "a-good")
    copied(shelf("bert"), tmp_path / "b-bad")
    (tmp_path / "b-bad" / "config.json").write_text("{")
    copied(shelf("vit"), tmp_path / "deeper" / "ünïcode gut")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.txt").write_text("nothing here")
    sources, failed = scan(tmp_path)
    assert [s.name for s in sources] == ["a-good", "deeper/ünïcode gut"]
    assert [(name, type(p)) for name, p in failed] == [("b-bad", Unreadable)]


def test_an_empty_or_missing_folder_is_listed_and_not_raised(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "missing"):
        assert isinstance(only_problem(place), Unreadable)


def test_links_to_models_elsewhere_are_told(shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine").symlink_to(shelf("bert"), target_is_directory=True)
    found, ((_, problem),) = scan(tmp_path / "models")
    assert not found
    assert "as `mine`, are not followed" in problem.what
    assert problem.fix.endswith(str(shelf("bert").resolve()))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pkl"])
def test_pickled_weights_are_refused_with_the_command_that_converts_them(
    shelf: Shelf, tmp_path: Path, name: str
) -> None:
    folder = copied(shelf("bert"), tmp_path / "model")
    (folder / "model.safetensors").rename(folder / name)
    problem = only_problem(folder)
    assert isinstance(problem, Unreadable)
    assert f"headstart inventory convert {folder}" in problem.fix


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_code_of_its_own_is_refused(shelf: Shelf, tmp_path: Path, name: str) -> None:
    folder = copied(shelf("bert"), tmp_path / "model")
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    edited(folder, name, auto_map={"AutoModel": "evil.Evil", "AutoTokenizer": ["evil.Evil", None]})
    problem = only_problem(folder)
    assert isinstance(problem, Refused)
    assert "auto_map" in problem.what


@pytest.mark.parametrize("kind", ["custom_st.Transformer", "os.system", "sentence_transformers.models.CNN"])
def test_modules_that_are_not_known_are_refused(shelf: Shelf, tmp_path: Path, kind: str) -> None:
    folder = copied(shelf("bert"), tmp_path / "model")
    (folder / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "", "type": kind}]))
    assert isinstance(only_problem(folder), Refused)


@pytest.mark.parametrize("path", ["../outside", "/etc", "a/../../outside", "nul\0byte"])
def test_module_paths_that_leave_the_folder_are_refused(shelf: Shelf, tmp_path: Path, path: str) -> None:
    copied(shelf("bert"), tmp_path / "outside")
    folder = copied(shelf("bert"), tmp_path / "model")
    modules = [
        {"idx": 0, "name": "0", "path": path, "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    problem = only_problem(folder)
    assert isinstance(problem, Unreadable)
    assert "leads out of the folder" in problem.what


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer_config.json"])
def test_links_that_leave_the_folder_are_refused(shelf: Shelf, tmp_path: Path, name: str) -> None:
    folder = copied(shelf("bert"), tmp_path / "model")
    (folder / name).unlink()
    (folder / name).symlink_to(shelf("bert") / name)
    assert "leads out" in only_problem(folder).what


def test_an_index_that_leaves_the_folder_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    folder = copied(shelf("bert"), tmp_path / "model")
    (folder / "model.safetensors").rename(tmp_path / "outside.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "../outside.safetensors"}}))
    assert "leads out" in only_problem(folder).what


def test_a_hub_cache_with_its_links_is_read(shelf: Shelf, tmp_path: Path) -> None:
    home = tmp_path / "models--org--tiny"
    snapshot = home / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (home / "blobs").mkdir()
    for path in shelf("bert").iterdir():
        blob = path.name.encode().hex()
        shutil.copy(path, home / "blobs" / blob)
        (snapshot / path.name).symlink_to(f"../../blobs/{blob}")
    (source,), failed = scan(tmp_path)
    assert not failed
    assert source.name == "org/tiny"


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}, "decoder"),
        ({"model_type": "t5", "is_encoder_decoder": True, "architectures": ["T5Model"]}, "encoder-decoder"),
        ({"model_type": "llama", "architectures": ["LlamaModel"]}, "llama"),
        ({"model_type": "bert", "is_decoder": True}, "decoder"),
    ],
)
def test_other_architectures_are_refused_by_name(
    shelf: Shelf, tmp_path: Path, changes: dict[str, Any], word: str
) -> None:
    folder = copied(shelf("bert"), tmp_path / "model")
    edited(folder, "config.json", **changes)
    problem = only_problem(folder)
    assert isinstance(problem, Refused)
    assert word in problem.what


def test_adapters_and_onnx_files_are_refused_by_name(tmp_path: Path) -> None:
    for name, word in (("adapter_config.json", "adapter"), ("model.onnx", "ONNX")):
        folder = tmp_path / word
        folder.mkdir()
        (folder / name).write_text("{}")
        assert word in only_problem(folder).what


def damaged_header(path: Path, header: bytes, *, length: int | None = None) -> None:
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header)


@pytest.mark.parametrize(
    "header",
    [
        b"{",
        b"[]",
        b'{"x": 1}',
        b'{"x": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}',
        b'{"x": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 0]}}',
        b'{"x": {"dtype": "EVIL", "shape": [0], "data_offsets": [0, 0]}}',
        b'{"x": {"dtype": "F32", "shape": [0], "data_offsets": [5, 5]}}',
        b"[" * 5000,
    ],
)
def test_damaged_weights_are_unreadable(shelf: Shelf, tmp_path: Path, header: bytes) -> None:
    folder = copied(shelf("bert"), tmp_path / "model")
    damaged_header(folder / "model.safetensors", header)
    assert isinstance(only_problem(folder), Unreadable)


def test_a_header_longer_than_its_file_is_unreadable(shelf: Shelf, tmp_path: Path) -> None:
    folder = copied(shelf("bert"), tmp_path / "model")
    damaged_header(folder / "model.safetensors", b"{}", length=2**62)
    assert isinstance(only_problem(folder), Unreadable)
    (folder / "model.safetensors").write_bytes(b"")
    assert isinstance(only_problem(folder), Unreadable)


def test_missing_parts_are_named(shelf: Shelf, tmp_path: Path) -> None:
    for kind, names, word in (
        ("bert", ("config.json",), "config.json"),
        ("bert", ("model.safetensors",), "model.safetensors"),
        ("bert", ("tokenizer.json",), "tokenizer"),
        ("vit", ("preprocessor_config.json",), "preprocessor_config.json"),
    ):
        folder = copied(shelf(kind), tmp_path / word)
        for name in names:
            (folder / name).unlink()
        assert word in only_problem(folder).what


def test_a_configuration_that_says_nothing_is_not_one_that_lacks(shelf: Shelf, tmp_path: Path) -> None:
    folder = copied(shelf("bert"), tmp_path / "model")
    (folder / "config.json").write_text("{}")
    assert only_problem(folder).what == "`config.json` is empty"


def test_a_folder_without_permission_is_listed(shelf: Shelf, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("the superuser may read everything")
    folder = copied(shelf("bert"), tmp_path / "model")
    folder.chmod(0)
    try:
        assert isinstance(only_problem(folder), Unreadable)
    finally:
        folder.chmod(0o700)


def test_the_licence_is_read_as_plain_text(shelf: Shelf, tmp_path: Path) -> None:
    folder = copied(shelf("bert"), tmp_path / "model")
    hostile = "<script>alert(1)</script>"
    (folder / "README.md").write_text(
        f"---\nlanguage: en\nlicense: '{hostile}'\nbase_model: org/base\nx: &a [*a, *a]\n---\n# Model"
    )
    (source,), _ = scan(folder)
    assert source.licence == hostile
    assert source.lineage == ("org/base",)


def test_sentence_transformers_settings_are_read(minilm: Path) -> None:
    (source,), failed = scan(minilm)
    assert not failed
    assert (source.kind, source.licence) == ("sentence_transformer", "apache-2.0")
    facts = source.facts
    assert (facts["width"], facts["max_length"], facts["pooling"], facts["normalise"]) == (384, 256, "mean", True)


def test_a_model_that_takes_more_tokens_than_its_tokenizer_says_keeps_to_its_positions(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "roberta", "roberta")
    edited(folder, "tokenizer_config.json", model_max_length=10**30)
    (source,), _ = scan(folder)
    assert source.facts["max_length"] == 40 - 1  # the padding index 0 takes one position


def test_scanning_loads_no_torch(shelf: Shelf) -> None:
    code = (
        "import sys; from headstart.io.sources import scan; "
        f"assert scan({str(shelf('bert'))!r})[0]; "
        "sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'numpy')))"
    )
    paths = os.pathsep.join(p for p in sys.path if p)
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths}).returncode == 0
