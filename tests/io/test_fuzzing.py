"""Files from hostile hands: whatever is in them, reading ends with tensors or with a `Problem`, and in the folder.

Each test draws damage of one kind: headers of safetensors, indices of shards, delta files, folders of adapters, and
configurations. What is accepted is then used as a merge uses it.
"""

from __future__ import annotations

import contextlib
import json
import struct
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from headstart.combination import deltas
from headstart.combination.adapters import merge_adapters
from headstart.combination.merging import merge, planned
from headstart.core import Problem
from headstart.io import deltas as store
from headstart.io import model_folders, peft_folders, shards
from headstart.numerics import delta as forms

quick = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=60)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 40), st.sampled_from([2**31, 2**63, 2**64, 10**30, -(10**30)]),
    st.floats(), st.text(max_size=5),
    st.sampled_from(["F32", "I64", "F8_E4M3", "BF16", "../x", "/etc/passwd", "\ud800"]),
)  # fmt: skip
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
names = st.one_of(st.text(max_size=6), st.sampled_from(["w", "b", "__metadata__", "../../escape", "a/b", "", "\ud800"]))
entry = st.fixed_dictionaries(
    {"dtype": st.sampled_from(["F32", "I64", "BF16", "F8_E4M3", "C64", "BOOL"]) | values,
     "shape": st.lists(st.integers(0, 4), max_size=3) | values,
     "data_offsets": st.tuples(st.integers(0, 64), st.integers(0, 64)).map(list) | values}
)  # fmt: skip


def framed(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def used(folder: Path) -> None:
    """Merges the folder with itself; what is written lies in the folder asked for."""
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "deep" / "deeper" / "out"
        with contextlib.suppress(Problem):
            merge([folder, folder], out=out)
        found = {p.relative_to(name).parts[:3] for p in Path(name).rglob("*") if p.is_file()}
        assert found <= {("deep", "deeper", "out")}, found


def fresh(tmp_path: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=tmp_path))


@quick
@given(st.dictionaries(names, entry | values, max_size=4), st.integers(0, 80))
@example({"../../escape": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, 4)
@example({"\ud800": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, 4)
@example({"w": {"dtype": "F32", "shape": [True], "data_offsets": [False, 4]}}, 4)
@example({"w": {"dtype": "F32", "shape": [10**30, 0], "data_offsets": [0, 0]}}, 0)
@example({"w": {"dtype": "F32", "shape": [0] * 5000, "data_offsets": [0, 0]}}, 0)
def test_any_header(tmp_path: Path, header: dict[str, Any], count: int) -> None:
    folder = fresh(tmp_path)
    (folder / "model.safetensors").write_bytes(
        framed(json.dumps(header).encode("utf-8", "surrogatepass"), bytes(count))
    )
    used(folder)


@quick
@given(st.binary(max_size=60), st.none() | st.integers(0, 2**64 - 1), st.binary(max_size=8))
@example(b"{}", 2**63, b"")
@example(b"\xff\xfe{}", None, b"")
@example(b"[" * 40, None, b"")
@example(
    b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
    None,
    b"0000",
)
@example(b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"shape":[1]}}', None, b"0000")
@example(b'{"w":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,4]}}', None, b"0000")
def test_any_bytes_in_place_of_a_header(tmp_path: Path, header: bytes, length: int | None, data: bytes) -> None:
    folder = fresh(tmp_path)
    (folder / "model.safetensors").write_bytes(framed(header, data, length))
    used(folder)


GOOD = {"w": torch.arange(6.0).view(2, 3), "b": torch.ones(2)}


@quick
@given(st.integers(0, 10**6), st.integers(1, 255), st.integers(0, 10**6), st.booleans())
def test_any_byte_that_changes(tmp_path: Path, at: int, bits: int, cut: int, whole: bool) -> None:
    folder = fresh(tmp_path)
    file = folder / "model.safetensors"
    save_file(GOOD, file)
    raw = bytearray(file.read_bytes())
    raw[at % len(raw)] ^= bits
    file.write_bytes(bytes(raw if whole else raw[: cut % len(raw)]))
    used(folder)


@pytest.mark.parametrize("header", [
    {"a": [0, 8], "b": [4, 12]}, {"a": [0, 4], "b": [8, 12]}, {"a": [4, 8], "b": [8, 12]}, {"a": [0, 4], "b": [4, 8]},
    {"a": [8, 0], "b": [8, 12]}, {"a": [0, 12], "b": [0, 12]},
], ids=["overlap", "gap", "begins late", "ends early", "backwards", "twice the same"])  # fmt: skip
def test_places_that_do_not_follow_each_other(header: dict[str, list[int]], tmp_path: Path) -> None:
    said = {n: {"dtype": "U8", "shape": [max(0, b - a)], "data_offsets": [a, b]} for n, (a, b) in header.items()}
    (tmp_path / "model.safetensors").write_bytes(framed(json.dumps(said).encode(), bytes(12)))
    with pytest.raises(Problem, match="damaged"):
        model_folders.read(tmp_path)


def test_names_that_are_there_twice_or_lead_away_are_refused(tmp_path: Path) -> None:
    one = '{"dtype":"U8","shape":[1],"data_offsets":[0,1]}'
    for said, what in (
        (f'{{"w":{one},"w":{one}}}', "`w` is there twice"),
        (f'{{"../../x":{one}}}', "holds a slash"),
        (f'{{"2_Dense/x":{one}}}', "holds a slash"),
        (f'{{"\\ud800":{one}}}', "no text"),
        (f'{{"a\\u0000b":{one}}}', "no text"),
    ):
        (tmp_path / "model.safetensors").write_bytes(framed(said.encode(), b"0"))
        with pytest.raises(Problem) as caught:
            model_folders.read(tmp_path)
        assert what in caught.value.what, caught.value.what


indices = st.one_of(
    values,
    st.fixed_dictionaries({"weight_map": values | st.dictionaries(
        names, st.sampled_from(["one.safetensors", "two.safetensors", "gone.safetensors", "../x.safetensors",
                                "/dev/zero", "sub/../one.safetensors", "", ".", "one.safetensors\0", "\ud800",
                                "link.safetensors"]),
        max_size=4,
    )}),
)  # fmt: skip


@quick
@given(indices)
@example({"weight_map": {"w": ""}})
@example({"weight_map": {"w": "\ud800"}})
@example({"weight_map": {"w": "a" * 5000}})
@example({"weight_map": {"w": "link.safetensors"}})
@example({"weight_map": {"w": "one.safetensors", "b": "sub/../one.safetensors"}})
def test_any_index(tmp_path: Path, index: Any) -> None:
    folder = fresh(tmp_path)
    save_file({"w": GOOD["w"]}, folder / "one.safetensors")
    save_file({"b": GOOD["b"]}, folder / "two.safetensors")
    save_file(GOOD, tmp_path / "x.safetensors")
    (folder / "link.safetensors").symlink_to(tmp_path / "x.safetensors")
    (folder / "sub").mkdir()
    (folder / shards.INDEX).write_text(json.dumps(index))
    used(folder)
    try:
        held = model_folders.read(folder)
    except Problem:
        return
    assert all(e.file.resolve().is_relative_to(folder.resolve()) for e in held.tensors.values())


@quick
@given(values | st.lists(st.fixed_dictionaries({"type": st.just("x.Transformer"), "path": values | st.sampled_from(
    ["0_T", "0_T/", "./0_T", "0_T/../0_T", "..", "../model/0_T", "0_T/../../model/0_T", "/", "link", "0_T\0"])}),
    min_size=1, max_size=2))  # fmt: skip
@example([{"type": "x.Transformer", "path": "../model/0_T"}])
@example([{"type": "x.Transformer", "path": "0_T/../../model/0_T"}])
def test_any_list_of_modules(tmp_path: Path, modules: Any) -> None:
    folder = fresh(tmp_path) / "model"
    (folder / "0_T").mkdir(parents=True)
    save_file(GOOD, folder / "0_T" / "model.safetensors")
    (folder / "link").symlink_to(tmp_path)
    (folder / "modules.json").write_text(json.dumps(modules))
    used(folder)


configs = st.dictionaries(
    st.sampled_from(
        ["architectures", "id2label", "tie_word_embeddings", "dtype", "torch_dtype", "num_labels", "model_type"]
    ),
    values
    | st.just(["BertForSequenceClassification"])
    | st.dictionaries(st.sampled_from(["0", "1", "x", "-1"]), values),
)


@quick
@given(configs, st.sampled_from(["average", "separate", "concatenate", "refuse"]))
def test_any_configuration(tmp_path: Path, config: dict[str, Any], heads: Any) -> None:
    folder, other = fresh(tmp_path), fresh(tmp_path)
    for place in (folder, other):
        save_file({"m.w": GOOD["w"], "classifier.weight": GOOD["w"] + 1}, place / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    try:
        planned([folder, other], heads=heads)
        merge([folder, folder], heads=heads, dtype="bfloat16", out=tmp_path / "out", overwrite=True)
    except Problem:
        return


CHANGE = torch.arange(24.0).view(4, 6) - 12
FORMS: dict[str, forms.Form] = {
    "dense": forms.Dense(CHANGE), "whole": forms.Whole(torch.arange(3)), "sparse": forms.sparse(CHANGE, 0.2),
    "low": forms.LowRank((4, 6), torch.ones(4, 2), torch.ones(2, 6), 0.3, torch.ones(4)), "bit": forms.one_bit(CHANGE),
    "int8": forms.quantised(CHANGE), "int4": forms.quantised(CHANGE, 4), "mask": forms.masked(CHANGE > 0),
    "sum": forms.Sum((forms.sparse(CHANGE, 0.1), forms.Dense(CHANGE))),
}  # fmt: skip
FIELDS = ["form", "shape", "scale", "bits", "block", "parts", "tensors"]


@quick
@given(st.data())
def test_any_change_of_a_delta_s_account(tmp_path: Path, data: st.DataObject) -> None:
    """A field of one form gets any value, or the tensors of another; what is read can be used."""
    file = fresh(tmp_path) / "d.safetensors"
    store.write(forms.Delta("mark", FORMS), file)
    from safetensors import safe_open

    with safe_open(file, framework="pt") as held:
        said = json.loads(held.metadata()[store.KEY])
        tensors = {n: held.get_tensor(n) for n in held.keys()}  # noqa: SIM118  # the handle cannot be iterated
    name = data.draw(st.sampled_from(sorted(FORMS)))
    change = said["changes"][name]
    if data.draw(st.booleans()) and change.get("tensors"):
        field = data.draw(st.sampled_from(sorted(change["tensors"])))
        change["tensors"][field] = data.draw(st.sampled_from(sorted(tensors)))
    else:
        other = data.draw(st.sampled_from(sorted(FORMS)))
        change[data.draw(st.sampled_from(FIELDS))] = data.draw(
            values
            | st.sampled_from(json.loads(json.dumps([*said["changes"][other].values(), [said["changes"][other]]])))
        )
    if data.draw(st.booleans()):
        said[data.draw(st.sampled_from(["format", "base", "changes", "gone", "facts"]))] = data.draw(values)
    text = json.dumps(said)
    save_file(tensors, file, metadata={store.KEY: text})
    try:
        read = store.read(file)
        for form in read.changes.values():
            forms.applied(form, torch.zeros(forms.shape_of(form)))
        deltas.described(read, 0)
        deltas.compress(file, "int8", out=tmp_path / "c.safetensors")
        deltas.trim(file, 0.5, per="model", out=tmp_path / "t.safetensors")
        deltas.project(file, file, 1, out=tmp_path / "p.safetensors")
        deltas.mask(file, file, out=tmp_path / "m.safetensors")
        deltas.stack([file, file], out=tmp_path / "s.safetensors")
    except Problem:
        return


@quick
@given(
    facts=st.dictionaries(st.sampled_from(["tensors", "config", "main"]), values)
    | st.fixed_dictionaries({"tensors": st.dictionaries(names, names | st.none(), max_size=3)})
)
@example(facts={"tensors": {"../../../escape": "w", "w": "w"}})
@example(facts={"tensors": {"a/../../b/w": "w"}})
def test_no_name_in_a_delta_is_a_path(tmp_path: Path, facts: dict[str, Any]) -> None:
    base = fresh(tmp_path)
    save_file(GOOD, base / "model.safetensors")
    mark = store.fingerprint(model_folders.read(base))
    file = base.parent / "d.safetensors"
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "deep" / "deeper" / "out"
        try:
            store.write(forms.Delta(mark, {"w": forms.Dense(torch.ones(2, 3))}, (), facts), file)
            deltas.apply(file, base, out=out)
        except Problem:
            pass
        assert {p.relative_to(name).parts[:3] for p in Path(name).rglob("*") if p.is_file()} <= {
            ("deep", "deeper", "out")
        }


def test_an_absolute_name_in_a_delta_is_not_followed(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    save_file(GOOD, base / "model.safetensors")
    mark = store.fingerprint(model_folders.read(base))
    facts = {"tensors": {f"{tmp_path}/escape/w": "w"}}
    store.write(forms.Delta(mark, {}, (), facts), tmp_path / "d")
    with pytest.raises(Problem, match="leads out of the folder"):
        deltas.apply(tmp_path / "d", base, out=tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "d"]


def lora(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q"], "modules_to_save": ["head"]}
    tensors = {
        "base_model.model.q.lora_A.weight": torch.ones(2, 3), "base_model.model.q.lora_B.weight": torch.ones(4, 2),
        "base_model.model.head.weight": torch.ones(2, 2),
    }  # fmt: skip
    return config, tensors


KEYS = ["r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "fan_in_fan_out", "bias",
        "peft_type", "modules_to_save", "layer_replication", "target_modules", "trainable_token_indices"]  # fmt: skip


@quick
@given(
    st.dictionaries(st.sampled_from(KEYS), values, max_size=3),
    st.dictionaries(
        st.sampled_from(
            [
                "base_model.model.q.lora_A.weight",
                "base_model.model.q.lora_B.weight",
                "lora_A.weight",
                "../x",
                "base_model.model.q.lora_magnitude_vector",
                "base_model.model.q.lora_B.bias",
                ".lora_embedding_A",
            ]
        ),
        st.lists(st.integers(0, 4), max_size=4),
        max_size=2,
    ),
)
@example({"alpha_pattern": {"(a+)+$": 1, "[": 2}}, {})
@example({"lora_alpha": "x"}, {})
@example({"r": 0}, {"base_model.model.q.lora_A.weight": [0, 3], "base_model.model.q.lora_B.weight": [4, 0]})
def test_any_folder_of_an_adapter(tmp_path: Path, config: dict[str, Any], shapes: dict[str, list[int]]) -> None:
    folder = fresh(tmp_path)
    said, tensors = lora(folder)
    (folder / peft_folders.CONFIG).write_text(json.dumps({**said, **config}))
    made = {**tensors, **{n: torch.ones(s) for n, s in shapes.items()}}
    save_file({n: t.contiguous() for n, t in made.items()}, folder / peft_folders.WEIGHTS)
    try:
        peft_folders.read(folder)
        merge_adapters([folder, folder], out=folder / "out")
    except Problem:
        return


@quick
@given(st.binary(max_size=80), st.booleans())
def test_any_bytes_of_an_adapter(tmp_path: Path, raw: bytes, config: bool) -> None:
    folder = fresh(tmp_path)
    said, tensors = lora(folder)
    (folder / peft_folders.CONFIG).write_text(json.dumps(said))
    save_file(tensors, folder / peft_folders.WEIGHTS)
    (folder / (peft_folders.CONFIG if config else peft_folders.WEIGHTS)).write_bytes(raw)
    with pytest.raises(Problem):
        peft_folders.read(folder)
