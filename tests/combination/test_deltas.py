"""Delta files: the way there and back to the bit, smaller forms, wrong bases, and files from hostile hands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from headstart.combination import deltas
from headstart.core import Problem, Refused, Unfit, Unreadable
from headstart.io import deltas as store
from headstart.io import model_folders
from headstart.numerics import delta as forms
from tiny_models import save_model


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and two classifiers that were tuned from it."""
    folder = tmp_path_factory.mktemp("deltas")
    base = save_model(folder / "base", "bert")
    weights = load_file(base / "model.safetensors")
    for seed, name in enumerate(("mails", "chats")):
        tuned = save_model(folder / name, "bert", head=True, seed=seed)
        held = load_file(tuned / "model.safetensors")
        g = torch.Generator().manual_seed(seed)
        for key, value in weights.items():
            held[f"bert.{key}"] = value + 0.01 * torch.randn(value.shape, generator=g) * (".0." in key)
        save_file(held, tuned / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_applied_it_is_the_fine_tune_bit_for_bit(shelf: Path, tmp_path: Path) -> None:
    made = deltas.diff(shelf / "base", shelf / "mails", out=tmp_path / "d.safetensors", exact=True)
    assert not any(".1." in n for n in made.delta.changes)  # what did not change takes no room
    back = deltas.apply(tmp_path / "d.safetensors", shelf / "base", out=tmp_path / "back")
    ours, theirs = load_file(back / "model.safetensors"), load_file(shelf / "mails" / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[n].view(-1).view(torch.uint8), t.view(-1).view(torch.uint8)) for n, t in theirs.items())
    config = json.loads((back / "config.json").read_text())
    assert config["id2label"] == {"0": "low", "1": "mid", "2": "high"}
    assert store.fingerprint(model_folders.read(back)) == made.delta.facts["tuned_weights"]


def test_another_base_is_refused(shelf: Path, tmp_path: Path) -> None:
    deltas.diff(shelf / "base", shelf / "mails", out=tmp_path / "d.safetensors")
    other = save_model(tmp_path / "other", "bert", seed=7)
    with pytest.raises(Refused, match="made from another base"):
        deltas.apply(tmp_path / "d.safetensors", other, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_base_is_known_however_it_is_sharded(shelf: Path, tmp_path: Path) -> None:
    from headstart.combination.merging import merge

    again = merge([shelf / "base"], out=tmp_path / "sharded", shard_bytes=5000).where
    assert len(list(again.glob("*.safetensors"))) > 1
    deltas.diff(shelf / "base", shelf / "mails", out=tmp_path / "d.safetensors", exact=True)
    deltas.apply(tmp_path / "d.safetensors", again, out=tmp_path / "out")


@pytest.mark.parametrize("form", ["sparse:0.05", "lowrank:2", "onebit", "onebit:rows", "int8", "int4"])
def test_smaller_forms_are_smaller_and_still_apply(form: str, shelf: Path, tmp_path: Path) -> None:
    whole = deltas.diff(shelf / "base", shelf / "mails", out=tmp_path / "d.safetensors")
    small = deltas.compress(tmp_path / "d.safetensors", form, out=tmp_path / "s.safetensors")
    assert small.delta.bytes < whole.delta.bytes
    read = store.read(tmp_path / "s.safetensors")
    for name, change in small.delta.changes.items():
        assert type(read.changes[name]) is type(change)
        if not isinstance(change, forms.Whole):
            assert torch.equal(forms.dense(read.changes[name]), forms.dense(change))
    back = deltas.apply(tmp_path / "s.safetensors", shelf / "base", out=tmp_path / "back")
    head = "classifier.weight"
    kept = load_file(shelf / "mails" / "model.safetensors")
    assert torch.equal(load_file(back / "model.safetensors")[head], kept[head])


def test_an_unknown_form_is_answered(shelf: Path, tmp_path: Path) -> None:
    deltas.diff(shelf / "base", shelf / "mails", out=tmp_path / "d.safetensors")
    for form in ("int2", "sparse:2", "sparse:much", "lowrank:0", "onebit:columns"):
        with pytest.raises(Unfit, match="is no form of a delta"):
            deltas.compress(tmp_path / "d.safetensors", form, out=tmp_path / "s.safetensors")


def test_comparing_and_stacking(shelf: Path, tmp_path: Path) -> None:
    paths = [tmp_path / f"{n}.safetensors" for n in ("mails", "chats")]
    for path in paths:
        deltas.diff(shelf / "base", shelf / path.stem, out=path)
    same = deltas.compare(paths[0], paths[0])
    assert abs(same["cosine"] - 1) < 1e-9
    assert same["conflict"] == 0
    assert same["overlap"] == 1
    other = deltas.compare(*paths)
    assert abs(other["cosine"]) < 0.2  # drawn apart
    assert 0.3 < other["conflict"] < 0.7
    with pytest.raises(Unfit, match="replaced as a whole, and differently"):
        deltas.stack(paths, out=tmp_path / "both.safetensors")
    body = [store.read(p) for p in paths]
    for path, one in zip(paths, body, strict=True):
        bare = {n: c for n, c in one.changes.items() if not isinstance(c, forms.Whole)}
        store.write(forms.Delta(one.base, bare), path)
    made = deltas.stack(paths, (0.5, 2.0), out=tmp_path / "both.safetensors")
    for name, change in made.delta.changes.items():
        expected = 0.5 * forms.dense(body[0].changes[name]) + 2 * forms.dense(body[1].changes[name])
        torch.testing.assert_close(forms.dense(change), expected)


def test_parts_of_a_delta_apply_and_add_up_to_it(shelf: Path, tmp_path: Path) -> None:
    for name in ("mails", "chats"):
        deltas.diff(shelf / "base", shelf / name, out=tmp_path / name)
    mails, chats = tmp_path / "mails", tmp_path / "chats"
    deltas.trim(mails, 0.1, out=tmp_path / "top")
    pairs = {
        "mask": [deltas.mask(mails, tmp_path / "top", out=tmp_path / f"m{o}", outside=o) for o in (False, True)],
        "rows": [deltas.project(mails, chats, 3, side="rows", off=o, out=tmp_path / f"r{o}") for o in (False, True)],
    }
    whole = store.read(mails).changes
    for inside, outside in pairs.values():
        for name, change in whole.items():
            if isinstance(change, forms.Whole):
                continue
            both = [forms.dense(d.delta.changes[name]) for d in (inside, outside) if name in d.delta.changes]
            vector = len(forms.shape_of(change)) < 2 and inside is pairs["rows"][0]  # which projecting leaves alone
            torch.testing.assert_close(both[0] if vector else sum(both), forms.dense(change), atol=1e-6, rtol=1e-5)
        deltas.apply(inside.where, shelf / "base", out=inside.where.with_name(f"{inside.where.name}-applied"))
    half = deltas.scale(mails, 0.5, out=tmp_path / "half")
    assert abs(deltas.compare(half.where, mails)["cosine"] - 1) < 1e-6
    for call, what in (
        (lambda: deltas.scale(mails, float("nan"), out=tmp_path / "x"), "cannot be scaled by nan"),
        (lambda: deltas.project(mails, chats, 0, out=tmp_path / "x"), "rank is 0"),
        (lambda: deltas.project(mails, chats, 1, side="diagonal", out=tmp_path / "x"), "side is `diagonal`"),
        (lambda: deltas.trim(mails, 0.1, per="layer", out=tmp_path / "x"), "per is `layer`"),
    ):
        with pytest.raises(Unfit, match=what):
            call()


def every_form(shape: tuple[int, ...] = (4, 6)) -> dict[str, forms.Form]:
    g = torch.Generator().manual_seed(0)
    change = torch.randn(shape, generator=g)
    low = forms.LowRank(shape, torch.randn(4, 2, generator=g), torch.randn(2, 6, generator=g), 0.3, torch.ones(4))
    return {
        "dense": forms.Dense(change.bfloat16()), "whole": forms.Whole(torch.arange(3)), "sparse": forms.sparse(change,
        0.2), "low": low, "bit": forms.one_bit(change), "int8": forms.quantised(change), "int4":
        forms.quantised(change, 4), "mask": forms.masked(change > 0), "sum": forms.Sum((forms.sparse(change, 0.1),
        forms.Dense(change))), "few": forms.Sparse(shape, torch.tensor([1, 7], dtype=torch.int32),
        torch.ones(2)), "old": forms.Sparse(shape, torch.tensor([1, 7]), torch.ones(2)),
        "a/name with: odd\nletters": forms.Dense(change),
    }  # fmt: skip


def test_every_form_is_read_as_it_was_written(tmp_path: Path) -> None:
    held = forms.Delta("mark", every_form(), ("gone",), {"method": "x", "n": 1})
    size = store.write(held, tmp_path / "d.safetensors")
    assert size == (tmp_path / "d.safetensors").stat().st_size
    read = store.read(tmp_path / "d.safetensors")
    assert (read.base, read.gone, dict(read.facts)) == ("mark", ("gone",), {"method": "x", "n": 1})
    base = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    for name, form in held.changes.items():
        assert torch.equal(forms.applied(read.changes[name], base), forms.applied(form, base))


def damaged(said: dict[str, Any], path: list[str | int], value: Any) -> None:
    at: Any = said
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value


HOSTILE: list[tuple[list[str | int], Any]] = [
    (["format"], 3), (["format"], "1"), (["changes", "low", "form"], "pickle"), (["changes", "low", "shape"], [400, 6]),
    (["changes", "low", "scale"], "x"), (["changes", "sparse", "shape"], [1, 1]), (["changes", "sparse", "shape"], [-4,
    -6]), (["changes", "sparse", "tensors", "places"], "0.values"), (["changes", "sparse", "tensors", "values"],
    "9.values"), (["changes", "few", "shape"], [1, 7]), (["changes", "old", "shape"], [1, 7]),
    (["changes", "bit", "shape"], [4, 600]),
    (["changes", "int8", "bits"], 3), (["changes", "int8", "block"], 0), (["changes", "int8", "shape"], [999, 6]),
    (["changes", "mask", "shape"], [4, 60]), (["changes", "sum", "parts"], []), (["changes", "dense", "tensors"], {}),
    (["changes", "dense", "tensors", "values"], "nowhere"), (["changes"], 5), (["facts"], None), (["changes", "low"],
    None),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value"), HOSTILE, ids=[f"{p}={v}"[:50] for p, v in HOSTILE])
def test_a_file_that_does_not_fit_together_is_refused(path: list[str | int], value: Any, tmp_path: Path) -> None:
    file = tmp_path / "d.safetensors"
    store.write(forms.Delta("mark", every_form()), file)
    from safetensors import safe_open

    with safe_open(file, framework="pt") as held:
        said = json.loads(held.metadata()[store.KEY])
        tensors = {n: held.get_tensor(n) for n in held.keys()}  # noqa: SIM118  # the handle cannot be iterated
    damaged(said, path, value)
    save_file(tensors, file, metadata={store.KEY: json.dumps(said)})
    with pytest.raises(Unreadable):
        store.read(file)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_any_byte_that_changes_is_noticed_or_does_no_harm(data: st.DataObject, tmp_path: Path) -> None:
    file = tmp_path / "d.safetensors"
    store.write(forms.Delta("mark", every_form()), file)
    raw = bytearray(file.read_bytes())
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.sampled_from([len(raw), at, len(raw) - 1]))
    file.write_bytes(bytes(raw[:cut]))
    base = torch.zeros(4, 6)
    try:
        for change in store.read(file).changes.values():
            forms.applied(change, base)
    except (Problem, RuntimeError):  # torch's own word for shapes that do not go together
        return


def test_files_that_are_no_deltas_are_named(shelf: Path, tmp_path: Path) -> None:
    for path in (tmp_path / "none", shelf / "base" / "model.safetensors", shelf / "base" / "config.json"):
        with pytest.raises(Unreadable):
            store.read(path)
