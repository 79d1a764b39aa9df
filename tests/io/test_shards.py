"""Shards: any layout is what the format asks for and holds every tensor once; pieces may come in any order."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from headstart.core import Unreadable
from headstart.io.safetensors_files import entries
from headstart.io.shards import WRITTEN, Checkpoint, Planned, ShardWriter, laid_out

TYPES = {"F32": np.float32, "F16": np.float16, "I64": np.int64, "U8": np.uint8}
tensor = st.tuples(
    st.sampled_from(sorted(TYPES)), st.lists(st.integers(0, 5), max_size=3), st.sampled_from(["", "2_D/"])
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.lists(tensor, min_size=1, max_size=8), st.integers(1, 300), st.randoms(use_true_random=False))
def test_what_is_written_in_pieces_is_read_by_safetensors(
    tmp_path: Path, tensors: list[tuple[str, list[int], str]], shard_bytes: int, draw: random.Random
) -> None:
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    plan = [Planned(f"{inner}t{i}", dtype, tuple(shape), inner) for i, (dtype, shape, inner) in enumerate(tensors)]
    numbers = np.random.default_rng(0)
    held = {p.name: numbers.integers(0, 100, p.shape).astype(TYPES[p.dtype]) for p in plan}
    shards = laid_out(plan, shard_bytes)
    assert sorted(n for s in shards for n in s.places) == sorted(held)
    for shard in shards:  # a file is no larger than asked, unless one tensor is
        assert shard.bytes - len(shard.header) <= shard_bytes or len(shard.places) == 1
    pieces = []
    for name, array in held.items():
        raw = array.reshape(-1).view(np.uint8) if array.size else np.empty(0, np.uint8)
        pieces += [(name, start, raw[start : start + 7]) for start in range(0, max(1, len(raw)), 7)]
    draw.shuffle(pieces)
    with ShardWriter(folder, shards) as writer:
        for name, start, piece in pieces:
            writer.write(name, start, piece)
        for name, array in held.items():
            writer.finish(name, array.nbytes)
        writer.complete()
    assert not (folder / WRITTEN).exists()
    for shard in shards:
        found = load_file(folder / shard.path)
        assert {shard.folder + n for n in found} == set(shard.places)
        for name, array in found.items():
            assert np.array_equal(array, held[shard.folder + name])
            assert array.dtype == held[shard.folder + name].dtype
    read = {shard.folder + e.name: e for shard in shards for e in entries([folder / shard.path])}
    with Checkpoint(read) as checkpoint:
        for name, array in held.items():
            raw = array.reshape(-1).view(np.uint8) if array.size else np.empty(0, np.uint8)
            middle = len(raw) // 2
            into = np.empty(len(raw) - middle, np.uint8)
            checkpoint.read(name, middle, into)
            assert np.array_equal(into, raw[middle:])
    index = folder / "model.safetensors.index.json"
    if sum(not s.folder for s in shards) > 1:
        assert set(json.loads(index.read_text())["weight_map"]) == {n for n in held if "/" not in n}
    else:
        assert not index.exists()


def test_what_was_finished_is_known_to_the_next_writer(tmp_path: Path) -> None:
    shards = laid_out([Planned(n, "F32", (3,)) for n in "abc"], 1000)
    with ShardWriter(tmp_path, shards) as writer:
        writer.write("b", 0, np.ones(3, np.float32))
        writer.finish("b", 12)
        writer.write("c", 0, np.ones(1, np.float32))  # begun and not finished
    with (tmp_path / WRITTEN).open("a") as notes:
        notes.write('"c"')  # half a line of a writer that was killed
    again = ShardWriter(tmp_path, shards)
    assert again.done == {"b"}


def test_a_file_that_was_cut_while_it_is_read_is_named(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    file = tmp_path / "model.safetensors"
    save_file({"w": np.ones(100, np.float32)}, file)
    with Checkpoint({e.name: e for e in entries([file])}) as checkpoint:
        file.write_bytes(file.read_bytes()[:50])
        with pytest.raises(Unreadable, match="became shorter while it was read"):
            checkpoint.read("w", 0, np.empty(100, np.float32))


def test_room_is_taken_before_the_first_byte(tmp_path: Path) -> None:
    shards = laid_out([Planned("a", "F32", (1 << 20,))], 1 << 30)
    with ShardWriter(tmp_path, shards) as writer:
        writer.write("a", 0, np.ones(1 << 20, np.float32))
        writer.finish("a", 1 << 22)
    with ShardWriter(tmp_path, shards):  # another that goes on keeps what is there
        pass
    assert load_file(tmp_path / "model.safetensors")["a"].sum() == 1 << 20
    plain, taken = tmp_path / "plain", tmp_path / "taken"
    with plain.open("wb") as file:
        file.truncate(1 << 22)
    if plain.stat().st_blocks:
        pytest.skip("this file system has no files with holes")
    told = shutil.which("fallocate") and subprocess.run(["fallocate", "-l", str(1 << 22), str(taken)], check=False)
    if not told or told.returncode or not taken.stat().st_blocks:
        pytest.skip("this file system takes no room before bytes are written, or there is no `fallocate` to tell")
    other = tmp_path / "other"
    other.mkdir()
    with ShardWriter(other, shards):
        assert (other / "model.safetensors").stat().st_blocks * 512 >= 1 << 22


def test_files_have_their_size_where_room_cannot_be_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(*_: object, **__: object) -> object:
        return object()

    monkeypatch.setattr("headstart.io.shards.ctypes.CDLL", without)
    shards = laid_out([Planned("a", "F32", (1 << 20,))], 1 << 30)
    with ShardWriter(tmp_path, shards):
        assert (tmp_path / "model.safetensors").stat().st_size == shards[0].bytes
