"""The same weights have one fingerprint however they lie on disk; whatever changes outputs changes the identity."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from headstart.core import Source, Unreadable
from headstart.io import fingerprints, sources

Shelf = Callable[..., Path]


def source_of(folder: Path, **options: Any) -> Source:
    (source,), failed = sources.scan(folder, **options)
    assert not failed
    return source


def copied(folder: Path, place: Path) -> Path:
    shutil.copytree(folder, place)
    return place


def edited(folder: Path, name: str, **changes: Any) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rewritten(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    tensors = {k: v.clone() for k, v in load_file(folder / "model.safetensors").items()}
    save_file(change(tensors), folder / "model.safetensors")


def test_a_resharded_and_renamed_copy_has_the_same_fingerprints(shelf: Shelf, tmp_path: Path) -> None:
    folder = copied(shelf("bert"), tmp_path / "another name")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors, reverse=True)
    where = {}
    for number, some in enumerate((names[::2], names[1::2])):
        file = f"part-{number}.safetensors"
        save_file({f"bert.{n}": tensors[n] for n in some}, folder / file)
        where |= {f"bert.{n}": file for n in some}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    one, other = source_of(shelf("bert")), source_of(folder)
    assert one.weights == other.weights
    assert one.identity == other.identity
    assert one.name != other.name


def test_a_copy_saved_again_by_transformers_has_the_same_weights(shelf: Shelf, tmp_path: Path) -> None:
    from transformers import AutoModel

    folder = copied(shelf("vit"), tmp_path / "again")
    AutoModel.from_pretrained(folder).save_pretrained(folder, max_shard_size="8KB")
    assert not (folder / "model.safetensors").exists() or len(list(folder.glob("*.safetensors"))) > 1
    (folder / "model.safetensors").unlink(missing_ok=True)
    assert source_of(folder).weights == source_of(shelf("vit")).weights


def test_a_tied_matrix_counts_once(shelf: Shelf, tmp_path: Path) -> None:
    folder = copied(shelf("bert"), tmp_path / "tied")
    name = "embeddings.word_embeddings.weight"
    rewritten(folder, lambda t: t | {"zz.decoder.weight": t[name].clone()})
    assert source_of(folder).weights == source_of(shelf("bert")).weights


def test_index_buffers_are_no_weights(shelf: Shelf, tmp_path: Path) -> None:
    folder = copied(shelf("bert"), tmp_path / "buffered")
    rewritten(folder, lambda t: t | {"embeddings.position_ids": torch.arange(40)[None]})
    assert source_of(folder).weights == source_of(shelf("bert")).weights


@pytest.mark.parametrize("change", ["one bit", "dtype", "shape", "name"])
def test_other_weights_have_another_fingerprint(shelf: Shelf, tmp_path: Path, change: str) -> None:
    folder = copied(shelf("bert"), tmp_path / "changed")
    name = "embeddings.word_embeddings.weight"

    def changed(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if change == "one bit":
            tensors[name].view(torch.int32)[3, 3] ^= 1
        elif change == "dtype":
            tensors[name] = tensors[name].view(torch.int32)
        elif change == "shape":
            tensors[name] = tensors[name].reshape(-1, 2)
        else:
            tensors["other"] = tensors.pop(name)
        return tensors

    rewritten(folder, changed)
    assert source_of(folder).weights != source_of(shelf("bert")).weights


@pytest.mark.parametrize(
    ("model", "file", "changes", "same"),
    [
        ("bert", "config.json", {"layer_norm_eps": 1e-3}, False),
        ("bert", "config.json", {"hidden_act": "relu"}, False),
        ("bert", "config.json", {"_name_or_path": "x", "transformers_version": "1", "torch_dtype": "float32"}, True),
        ("bert", "tokenizer_config.json", {"model_max_length": 8}, False),
        ("bert", "tokenizer_config.json", {"name_or_path": "elsewhere"}, True),
        ("bert", "tokenizer.json", {"normalizer": None}, False),
        ("bert", "tokenizer.json", {"padding": None, "truncation": None}, True),
        ("vit", "preprocessor_config.json", {"image_mean": [0.1, 0.2, 0.3]}, False),
        ("vit", "preprocessor_config.json", {"image_std": [0.1, 0.2, 0.3]}, False),
    ],
)
def test_identity_follows_what_changes_outputs(
    shelf: Shelf, tmp_path: Path, model: str, file: str, changes: dict[str, Any], same: bool
) -> None:
    folder = copied(shelf(model), tmp_path / "changed")
    edited(folder, file, **changes)
    one, other = source_of(shelf(model)), source_of(folder)
    assert one.weights == other.weights
    assert (one.identity == other.identity) is same


def test_pooling_is_part_of_the_identity(minilm: Path, tmp_path: Path) -> None:
    folder = tmp_path / "minilm"
    shutil.copytree(minilm, folder, ignore=shutil.ignore_patterns("model.safetensors"))
    os.link(minilm / "model.safetensors", folder / "model.safetensors")
    edited(folder, "1_Pooling/config.json", pooling_mode_cls_token=True, pooling_mode_mean_tokens=False)
    cache = tmp_path / "cache"
    one, other = source_of(minilm, cache=cache), source_of(folder, cache=cache)
    assert one.weights == other.weights
    assert one.identity != other.identity


def test_unchanged_files_are_hashed_once_and_changed_ones_again(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, cache = copied(shelf("bert"), tmp_path / "model"), tmp_path / "cache"
    read: list[Path] = []
    real = fingerprints._read
    monkeypatch.setattr(fingerprints, "_read", lambda tensors: read.append(tensors[0].file) or real(tensors))
    file = folder / "model.safetensors"
    os.utime(file, ns=(10**18, 10**18))  # long ago
    first = source_of(folder, cache=cache)
    assert source_of(folder, cache=cache) == first
    assert len(read) == 1
    rewritten(folder, lambda t: {k: v + 1 for k, v in t.items()})
    os.utime(file, ns=(10**18 + 1, 10**18 + 1))
    assert source_of(folder, cache=cache).weights != first.weights
    assert len(read) == 2


def test_the_digest_of_a_file_of_weights_is_of_every_byte(shelf: Shelf, tmp_path: Path) -> None:
    file, other = shelf("bert") / "model.safetensors", tmp_path / "model.safetensors"
    digest, content = fingerprints.of_file(file), bytearray(file.read_bytes())
    shutil.copy(file, other)
    assert fingerprints.of_file(other) == digest
    header = 8 + int.from_bytes(content[:8], "little")
    for at in (content.index(b"}}", 0, header) + 2, header, (header + len(content)) // 2, len(content) - 1):
        changed = bytearray(content)
        changed[at] = ord("\n") if at < header else changed[at] ^ 1
        if changed != content:
            other.write_bytes(changed)
            assert fingerprints.of_file(other) != digest


def test_adding_to_the_bank_reads_the_weights_once(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.inventory import Inventory

    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path / "home"))
    folder = copied(shelf("bert"), tmp_path / "model")
    os.utime(folder / "model.safetensors", ns=(10**18, 10**18))  # long ago
    read: list[Path] = []
    real = fingerprints._read
    monkeypatch.setattr(fingerprints, "_read", lambda tensors: read.append(tensors[0].file) or real(tensors))
    with Inventory(tmp_path / "bank.sqlite") as bank:
        bank.add(folder)
        assert len(read) == 1
        assert bank.verify() == []
        assert len(read) == 2  # what a cache says is no proof


def test_a_file_changed_this_moment_is_not_remembered(shelf: Shelf, tmp_path: Path) -> None:
    folder, cache = copied(shelf("bert"), tmp_path / "model"), tmp_path / "cache"
    os.utime(folder / "model.safetensors")
    source_of(folder, cache=cache)
    assert not list(cache.glob("**/*.json"))


def test_a_damaged_cache_is_an_empty_one(shelf: Shelf, tmp_path: Path) -> None:
    folder, cache = copied(shelf("bert"), tmp_path / "model"), tmp_path / "cache"
    os.utime(folder / "model.safetensors", ns=(10**18, 10**18))
    first = source_of(folder, cache=cache)
    for path in cache.glob("**/*.json"):
        path.write_text("{")
    assert source_of(folder, cache=cache) == first


def test_pieces_are_only_for_memory_and_a_file_cut_short_is_told(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied(shelf("bert"), tmp_path / "model")
    file = folder / "model.safetensors"
    first = source_of(folder), fingerprints.of_file(file)
    monkeypatch.setattr(fingerprints, "CHUNK", 997)
    assert (source_of(folder), fingerprints.of_file(file)) == first
    known = fingerprints.entries([file])
    monkeypatch.setattr(fingerprints, "entries", lambda _: known)
    os.truncate(file, file.stat().st_size - 5)
    with pytest.raises(Unreadable, match="became shorter while it was read"):
        fingerprints.of_file(file)
