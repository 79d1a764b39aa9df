"""Delta files: the way there and back to the bit, smaller forms, wrong bases, and files from hostile hands."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_base_comes_back_from_the_fine_tune(dtype: torch.dtype, shelf: Path, tmp_path: Path) -> None:
    base = {n: v.to(dtype) for n, v in load_file(shelf / "base" / "model.safetensors").items()}
    far = {n: v.to(dtype) for n, v in load_file(shelf / "mails" / "model.safetensors").items()}
    near = {f"bert.{n}": v * torch.tensor(1.25).to(v.dtype) for n, v in base.items()}  # no number more than doubles
    heads = {n: v for n, v in far.items() if not n.startswith("bert.")}
    for name, weights in (("base", base), ("mails", far), ("near", {**near, **heads})):
        shutil.copytree(shelf / ("base" if name == "base" else "mails"), tmp_path / name)
        save_file(weights, tmp_path / name / "model.safetensors", metadata={"format": "pt"})
    for name, weights in (("near", near), ("mails", far)):
        made = deltas.diff(tmp_path / "base", tmp_path / name, out=tmp_path / f"{name}.safetensors")
        assert not made.delta.gone
        back = deltas.revert(made.where, tmp_path / name, out=tmp_path / f"{name}-base")
        found = load_file(back.where / "model.safetensors")
        assert found.keys() == base.keys()  # the head is left out
        assert {v.dtype for v in found.values() if v.is_floating_point()} == {dtype}
        assert back.exact == all(torch.equal(found[n], v) for n, v in base.items())
        for key, value in base.items():
            room = torch.finfo(dtype).eps * (value.double().abs() + weights[f"bert.{key}"].double().abs())
            assert ((found[key].double() - value.double()).abs() <= room).all(), key
        told = json.loads((back.where / "config.json").read_text())
        assert told == json.loads((shelf / "base" / "config.json").read_text())
        assert back.exact or name == "mails"  # what moved little comes back to the bit


def test_a_base_of_another_type_comes_back_in_it(shelf: Path, tmp_path: Path) -> None:
    base = {n: v.bfloat16() for n, v in load_file(shelf / "base" / "model.safetensors").items()}
    shutil.copytree(shelf / "base", tmp_path / "half")
    save_file(base, tmp_path / "half" / "model.safetensors", metadata={"format": "pt"})
    deltas.diff(tmp_path / "half", shelf / "mails", out=tmp_path / "d")
    back = deltas.revert(tmp_path / "d", shelf / "mails", out=tmp_path / "again")
    assert {v.dtype for v in load_file(back.where / "model.safetensors").values()} == {torch.bfloat16}
    assert back.exact  # float32 has room for changes of bfloat16


def test_numbers_that_rounding_took_come_back_and_tensors_that_only_the_base_has(tmp_path: Path) -> None:
    """As of MiniLM, which stores `position_ids` that transformers no longer writes."""
    g = torch.Generator().manual_seed(0)
    base = {
        "body.weight": torch.randn(60, 50, generator=g), "position_ids": torch.arange(8192)[None],
        "mask": torch.rand(64, 1024, generator=g) < 0.5, "flat.weight": torch.ones(7),
    }  # fmt: skip
    tuned = {n: v.clone() for n, v in base.items() if n in ("body.weight", "flat.weight")}
    tuned["body.weight"] += 0.01 * torch.randn(60, 50, generator=g)
    base["body.weight"][0, :9] = torch.tensor([1e-9, -1e-9, -0.0, 1e-40, 3.0, -3.0, 0.0, 1e30, 1e-30])
    for name, weights in (("base", base), ("tuned", tuned)):
        (tmp_path / name).mkdir()
        save_file(weights, tmp_path / name / "model.safetensors", metadata={"format": "pt"})
        (tmp_path / name / "config.json").write_text("{}")
    made = deltas.diff(tmp_path / "base", tmp_path / "tuned", out=tmp_path / "d")
    assert set(made.delta.gone) == set(made.delta.kept) == {"position_ids", "mask"}  # of 64 kB each, and no more
    assert 0 < forms.bytes_of(made.delta.mends["body.weight"]) < made.bytes / 16
    back = deltas.revert(tmp_path / "d", tmp_path / "tuned", out=tmp_path / "again")
    found = load_file(back.where / "model.safetensors")
    assert found.keys() == base.keys()
    for name, value in base.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name].view(-1).view(torch.uint8), value.view(-1).view(torch.uint8))
    assert back.exact
    scaled = deltas.scale(tmp_path / "d", 0.5, out=tmp_path / "half").delta
    assert (dict(scaled.kept), dict(scaled.mends)) == ({}, {})  # nothing is taken back from it

    base["mask"] = torch.cat([base["mask"], base["mask"][:1]])
    save_file(base, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    assert set(deltas.diff(tmp_path / "base", tmp_path / "tuned", out=tmp_path / "d").delta.kept) == {"position_ids"}
    with pytest.raises(Refused, match="`mask` of the base is not in the fine-tune") as caught:
        deltas.revert(tmp_path / "d", tmp_path / "tuned", out=tmp_path / "out")
    assert caught.value.where == "delta revert: 1 lost"
    assert "of tensors up to 64 kB" in caught.value.fix


def test_numbers_that_rounding_took_are_held_while_they_are_few(tmp_path: Path) -> None:
    """Of far changes nearly all numbers would be, which is to keep the base."""
    g = torch.Generator().manual_seed(0)
    base = 1e-6 * torch.randn(40, 50, generator=g)
    for name, weight in (("base", base), ("tuned", base + torch.randn(40, 50, generator=g))):
        (tmp_path / name).mkdir()
        save_file({"w": weight}, tmp_path / name / "model.safetensors", metadata={"format": "pt"})
        (tmp_path / name / "config.json").write_text("{}")
    assert not deltas.diff(tmp_path / "base", tmp_path / "tuned", out=tmp_path / "d").delta.mends
    assert not deltas.revert(tmp_path / "d", tmp_path / "tuned", out=tmp_path / "again").exact


def test_weights_lie_where_modules_of_a_folder_say(shelf: Path, tmp_path: Path) -> None:
    modules = [{"idx": 0, "name": "0", "path": "0_Transformer", "type": "sentence_transformers.models.Transformer"}]
    weights = load_file(shelf / "base" / "model.safetensors")
    for name, factor in (("base", 1.0), ("tuned", 1.25)):
        shutil.copytree(shelf / "base", tmp_path / name / "0_Transformer")
        (tmp_path / name / "modules.json").write_text(json.dumps(modules))
        held = {n: v * torch.tensor(factor).to(v.dtype) for n, v in weights.items()}
        save_file(held, tmp_path / name / "0_Transformer" / "model.safetensors", metadata={"format": "pt"})
    made = deltas.diff(tmp_path / "base", tmp_path / "tuned", out=tmp_path / "d", exact=True)
    back = deltas.apply(tmp_path / "d", tmp_path / "base", out=tmp_path / "applied")
    assert store.fingerprint(model_folders.read(back)) == made.delta.facts["tuned_weights"]
    deltas.diff(tmp_path / "base", tmp_path / "tuned", out=tmp_path / "d")
    assert deltas.revert(tmp_path / "d", tmp_path / "tuned", out=tmp_path / "again").exact
    assert [p.parent.name for p in tmp_path.glob("a*/**/*.safetensors")] == ["0_Transformer"] * 2


def test_small_tensors_that_were_replaced_are_taken_back(tmp_path: Path) -> None:
    """Counts of batches, which are whole numbers, a head of another size, and numbers of another type."""
    base = save_model(tmp_path / "base", "resnet", head=True)
    shutil.copytree(base, tmp_path / "tuned")
    weights = load_file(base / "model.safetensors")
    counts = [n for n in weights if n.endswith("num_batches_tracked")]
    head = next(n for n in weights if n.startswith("classifier") and n.endswith("bias"))
    norm = next(n for n in weights if n.endswith("normalization.weight"))
    assert counts
    changed = {n: v + 7 for n, v in weights.items() if n in counts}
    changed |= {head: torch.ones(5), norm: weights[norm].half()}
    save_file({**weights, **changed}, tmp_path / "tuned" / "model.safetensors", metadata={"format": "pt"})
    made = deltas.diff(base, tmp_path / "tuned", out=tmp_path / "d")
    assert {*counts, head} <= set(made.delta.kept)
    back = deltas.revert(tmp_path / "d", tmp_path / "tuned", out=tmp_path / "back")
    assert back.exact
    found = load_file(tmp_path / "back" / "model.safetensors")
    assert all(torch.equal(found[n], v) and found[n].dtype == v.dtype for n, v in weights.items())
    applied = deltas.apply(tmp_path / "d", base, out=tmp_path / "applied")
    again = load_file(applied / "model.safetensors")
    assert all(torch.equal(again[n], v) for n, v in changed.items() if n != norm)


def test_what_a_delta_has_forgotten_is_not_taken_back(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deltas, "KEPT_BYTES", 1000)  # as if its tensors were large
    weights = load_file(shelf / "mails" / "model.safetensors")
    matrix = "bert.encoder.layer.0.attention.self.query.weight"
    less = {n: v for n, v in weights.items() if n != matrix}
    other = {**weights, matrix: weights[matrix].half()}
    for name, held in (("less", less), ("other", other)):
        shutil.copytree(shelf / "mails", tmp_path / name)
        save_file(held, tmp_path / name / "model.safetensors", metadata={"format": "pt"})
    deltas.diff(shelf / "base", shelf / "mails", out=tmp_path / "d")
    deltas.diff(shelf / "base", tmp_path / "less", out=tmp_path / "of-less")
    deltas.diff(shelf / "base", tmp_path / "other", out=tmp_path / "of-other", exact=True)
    deltas.compress(tmp_path / "d", "int8", out=tmp_path / "small")
    held = store.read(tmp_path / "d")
    masks = {n: forms.masked(c.values > 0) if isinstance(c, forms.Dense) else c for n, c in held.changes.items()}
    store.write(replace(held, changes=masks), tmp_path / "masked")
    cases = [
        ("d", shelf / "chats", "taken from another fine-tune than `chats`"),
        ("of-less", tmp_path / "less", r"`encoder\.layer\.0\.attention\.self\.query\.weight` of the base is not in"),
        ("of-other", tmp_path / "other", "was replaced as a whole"),
        ("small", shelf / "mails", "does not tell the fine-tune"),
        ("masked", shelf / "mails", "is of the form `masked`"),
    ]
    for delta, tuned, said in cases:
        with pytest.raises(Refused, match=said):
            deltas.revert(tmp_path / delta, tuned, out=tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_a_folder_that_is_read_is_not_replaced(shelf: Path, tmp_path: Path) -> None:
    deltas.diff(shelf / "base", shelf / "mails", out=tmp_path / "d")
    for made, source in ((deltas.apply, "base"), (deltas.revert, "mails")):
        with pytest.raises(Refused, match="is read, and lies in the folder"):
            made(tmp_path / "d", shelf / source, out=shelf, overwrite=True)
    assert (shelf / "base" / "model.safetensors").is_file()


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


@pytest.mark.parametrize("form", ["sparse:0.05", "lowrank:2", "onebit", "onebit:rows", "int8", "int4", "trim"])
def test_how_much_of_a_change_a_form_keeps_is_told(form: str, shelf: Path, tmp_path: Path) -> None:
    deltas.diff(shelf / "base", shelf / "mails", out=tmp_path / "d")
    made = (
        deltas.trim(tmp_path / "d", 0.1, per="model", out=tmp_path / "s")
        if form == "trim"
        else deltas.compress(tmp_path / "d", form, out=tmp_path / "s")
    )
    told = deltas.described(store.read(tmp_path / "s"), made.bytes)
    before = load_file(shelf / "base" / "model.safetensors")
    tuned = load_file(shelf / "mails" / "model.safetensors")
    found = load_file(deltas.apply(tmp_path / "s", shelf / "base", out=tmp_path / "back") / "model.safetensors")
    change = [tuned[f"bert.{n}"].double() - b.double() for n, b in before.items()]
    lost = [tuned[f"bert.{n}"].double() - found[f"bert.{n}"].double() for n in before]
    error = float(sum(x.square().sum() for x in lost) / sum(x.square().sum() for x in change))
    assert told["change_kept"] == pytest.approx(1 - error, abs=1e-4)  # the weights are rounded to float32
    assert told["relative_error"] == pytest.approx(error**0.5, abs=1e-4)
    deltas.scale(tmp_path / "s", 0.5, out=tmp_path / "half")
    assert deltas.described(store.read(tmp_path / "half"), 0)["change_kept"] == told["change_kept"]
    deltas.mask(tmp_path / "s", tmp_path / "d", out=tmp_path / "part")
    for other in ("d", "part"):
        assert deltas.described(store.read(tmp_path / other), 0)["change_kept"] is None


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


def to_be_taken_back() -> forms.Delta:
    """With all that a file can hold."""
    mends = {"dense": forms.scattered((4, 6), torch.tensor([2, 23]), torch.tensor([0.5, -0.0]).bfloat16())}
    return forms.Delta("mark", every_form(), ("gone",), {}, {"gone": torch.arange(4)}, mends)


def test_what_takes_it_back_is_read_as_it_was_written_and_files_of_older_formats_have_none(tmp_path: Path) -> None:
    from safetensors import safe_open

    file, held = tmp_path / "d.safetensors", to_be_taken_back()
    store.write(held, file)
    read = store.read(file)
    assert torch.equal(read.kept["gone"], held.kept["gone"])
    found = forms.mended(torch.ones(4, 6).bfloat16(), read.mends["dense"])
    assert found.flatten()[[2, 23]].tolist() == [0.5, -0.0]
    assert found.sum() == 22.5
    for old in (1, 2):
        with safe_open(file, framework="pt") as opened:
            said = json.loads(opened.metadata()[store.KEY])
            tensors = {n: opened.get_tensor(n) for n in opened.keys()}  # noqa: SIM118  # the handle cannot be iterated
        less = {k: v for k, v in said.items() if k not in ("kept", "mends")}
        save_file(tensors, tmp_path / "old", metadata={store.KEY: json.dumps({**less, "format": old})})
        read = store.read(tmp_path / "old")
        assert (read.gone, dict(read.kept), dict(read.mends)) == (("gone",), {}, {})
        assert read.changes.keys() == held.changes.keys()


def damaged(said: dict[str, Any], path: list[str | int], value: Any) -> None:
    at: Any = said
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value


HOSTILE: list[tuple[list[str | int], Any]] = [
    (["format"], 5), (["format"], "1"), (["changes", "low", "form"], "pickle"), (["changes", "low", "shape"], [400, 6]),
    (["changes", "low", "scale"], "x"), (["changes", "sparse", "shape"], [1, 1]), (["changes", "sparse", "shape"], [-4,
    -6]), (["changes", "sparse", "tensors", "places"], "0.values"), (["changes", "sparse", "tensors", "values"],
    "9.values"), (["changes", "few", "shape"], [1, 7]), (["changes", "old", "shape"], [1, 7]),
    (["changes", "bit", "shape"], [4, 600]),
    (["changes", "int8", "bits"], 3), (["changes", "int8", "block"], 0), (["changes", "int8", "shape"], [999, 6]),
    (["changes", "mask", "shape"], [4, 60]), (["changes", "sum", "parts"], []), (["changes", "dense", "tensors"], {}),
    (["changes", "dense", "tensors", "values"], "nowhere"), (["changes"], 5), (["facts"], None), (["changes", "low"],
    None), (["kept"], {"other": "kept.0"}), (["kept"], {"gone": "nowhere"}), (["kept"], [1]),
    (["mends", "dense", "form"], "dense"), (["mends", "dense", "shape"], [3, 8]), (["mends", "dense", "shape"], [1, 1]),
    (["mends"], {"none": {}}), (["mends"], 5),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value"), HOSTILE, ids=[f"{p}={v}"[:50] for p, v in HOSTILE])
def test_a_file_that_does_not_fit_together_is_refused(path: list[str | int], value: Any, tmp_path: Path) -> None:
    file = tmp_path / "d.safetensors"
    store.write(to_be_taken_back(), file)
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
    file.unlink(missing_ok=True)  # what an example before this one damaged
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
