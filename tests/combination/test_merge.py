"""Merging folders: heads, names, types, refusals, and what a kill, a full disk or a second merge leave behind."""

from __future__ import annotations

import errno
import json
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from headstart import catalogue
from headstart.combination import forecasts
from headstart.combination.merging import Merged, carried_out, kind_of, merge, merge_recipe, planned
from headstart.combination.merging.uniform_soup import UniformSoup
from headstart.combination.writing import RECEIPT
from headstart.core import OverBudget, Problem, Refused, Unfit, Unreadable
from headstart.io import adapted, shards
from headstart.io.atomic import PART
from headstart.numerics.stream import Stopped
from tiny_models import save_model

Weights = dict[str, torch.Tensor]
CLASSES = {"architectures": ["TinyForSequenceClassification"], "model_type": "tiny"}


def write(folder: Path, tensors: Mapping[str, torch.Tensor], **config: Any) -> Path:
    folder.mkdir(parents=True)
    save_file(dict(tensors), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def labelled(*labels: str) -> dict[str, Any]:
    return {**CLASSES, "id2label": {str(i): v for i, v in enumerate(labels)}}


def weights(seed: int = 0, dtype: torch.dtype = torch.float32, **shapes: tuple[int, ...]) -> Weights:
    g = torch.Generator().manual_seed(seed)
    wanted = shapes or {"one.weight": (30, 20), "two.bias": (7,)}
    return {n: torch.randn(s, generator=g).to(dtype) for n, s in wanted.items()}


def tensors(folder: Path) -> Weights:
    return {n: t for file in sorted(folder.glob("*.safetensors")) for n, t in load_file(file).items()}


def left_behind(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name.startswith(PART))


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return write(tmp_path / "a", weights(1)), write(tmp_path / "b", weights(2))


def test_the_mean_of_two_folders(pair: tuple[Path, Path], tmp_path: Path) -> None:
    made = merge(pair, out=tmp_path / "out")
    for name, merged in tensors(tmp_path / "out").items():
        torch.testing.assert_close(merged, (weights(1)[name] + weights(2)[name]) / 2)
    assert made.receipt.facts["tensors"] == [{"how": "merged", "rule": "`linear`", "tensors": 2}]
    assert json.loads((tmp_path / "out" / RECEIPT).read_text())["method"] == "linear"
    card = (tmp_path / "out" / "README.md").read_text()
    assert "- merge" in card
    assert "with `linear`: weights 1/2 each, normalize true." in card
    assert left_behind(tmp_path) == []


def test_the_card_tells_weights_that_were_given_and_those_that_were_not(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("linear", {"weights": (0.7, 0.3)}, "weights [0.7, 0.3], normalize true"),
        ("linear", {"normalize": False}, "weights 1 each, normalize false"),
        ("task_arithmetic", {"scale": 0.5}, "scale 0.5, weights 1 each, normalize false"),
    ]
    for method, settings, said in cases:
        base = pair[0] if method == "task_arithmetic" else None
        merge(pair, method, base=base, settings=settings, out=tmp_path / "out", overwrite=True)
        assert f"with `{method}`: {said}." in (tmp_path / "out" / "README.md").read_text()


def test_shards_are_read_and_written(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", {"b.bias": torch.ones(3)})
    (folder / "model.safetensors").unlink()
    held = weights(1, torch.bfloat16, x=(50,), y=(60,), z=(2,))
    for number, name in enumerate(held):
        save_file({name: held[name]}, folder / f"model-{number}.safetensors")
    index = {"weight_map": {name: f"model-{number}.safetensors" for number, name in enumerate(held)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    merge([folder, folder], out=tmp_path / "out", shard_bytes=110)
    made = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert made["metadata"]["total_size"] == 224
    assert sorted(set(made["weight_map"].values())) == [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    assert all(torch.equal(t, held[n]) for n, t in tensors(tmp_path / "out").items())


@pytest.mark.parametrize("method", ["linear", "slerp", "ties", "dare", "tsv_m"])
def test_shards_tiles_and_threads_change_no_bit(method: str, tmp_path: Path) -> None:
    shapes = {"a": (300, 40), "b": (40,), "c": (20, 30)}
    folders = [write(tmp_path / f"m{i}", weights(i, torch.bfloat16, **shapes)) for i in range(3)]
    made = [
        merge(
            folders[1:], method, base=folders[0], out=tmp_path / f"out{i}", threads=i + 1, shard_bytes=[10**9, 999][i]
        )
        for i in range(2)
    ]
    one, other = (tensors(m.where) for m in made)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[n], other[n]) for n in one)


def test_heads_are_averaged_by_the_names_of_their_labels(tmp_path: Path) -> None:
    head = weights(3, **{"classifier.weight": (3, 4), "classifier.bias": (3,)})
    a = write(tmp_path / "a", head, **labelled("x", "y", "z"))
    turned = {n: t[[2, 0, 1]] for n, t in head.items()}
    b = write(tmp_path / "b", turned, **labelled("z", "x", "y"))
    merge([a, b], out=tmp_path / "out")
    assert all(torch.equal(t, head[n]) for n, t in tensors(tmp_path / "out").items())
    with pytest.raises(Refused, match="the same labels in another order"):
        planned([a, b], heads="refuse")


def test_heads_of_different_labels_are_refused_or_put_one_after_the_other(tmp_path: Path) -> None:
    head = weights(3, **{"classifier.weight": (4, 4), "body.weight": (2, 2)})
    a = write(tmp_path / "a", {**head, "classifier.weight": head["classifier.weight"][:2]}, **labelled("x", "y"))
    b = write(tmp_path / "b", {**head, "classifier.weight": head["classifier.weight"][2:]}, **labelled("u", "v"))
    with pytest.raises(Refused, match="`u` is a label of one only"):
        planned([a, b])
    merge([a, b], out=tmp_path / "out", heads="concatenate")
    assert torch.equal(tensors(tmp_path / "out")["classifier.weight"], head["classifier.weight"])
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["id2label"] == {"0": "x", "1": "y", "2": "u", "3": "v"}
    assert config["label2id"] == {"x": 0, "y": 1, "u": 2, "v": 3}
    rules = {n: f.rule for n, f in planned([a, b], heads="concatenate").fates.items()}
    assert rules == {"body.weight": "`linear`", "classifier.weight": "`linear`, rows by label name"}
    rules = {n: f.rule for n, f in planned([a, b], "ties", base=a, heads="concatenate").fates.items()}
    assert rules["classifier.weight"] == f"the mean, as `{tmp_path.name}/a` has other labels, rows by label name"


def test_labels_that_were_never_named_are_taken_on_trust_and_said(tmp_path: Path) -> None:
    head = {"classifier.weight": torch.ones(2, 3)}
    folders = [write(tmp_path / n, head, **CLASSES) for n in "ab"]
    assert "on trust" in planned(folders).warnings[0]


def test_a_head_that_the_base_lacks_is_averaged_and_the_bases_own_is_dropped(tmp_path: Path) -> None:
    body = weights(0, **{"encoder.weight": (4, 4)})
    base = write(tmp_path / "base", {**body, "cls.weight": torch.ones(5, 4)})
    tuned = [
        write(tmp_path / n, {"bert.encoder.weight": 2 * body["encoder.weight"], "classifier.weight": k * torch.ones(2,
        4)},
              **labelled("x", "y"))
        for k, n in enumerate("ab")
    ]  # fmt: skip
    made = merge(tuned, "task_arithmetic", base=base, settings={"scale": 0.5}, out=tmp_path / "out")
    out = tensors(made.where)
    torch.testing.assert_close(out["bert.encoder.weight"], 2 * body["encoder.weight"])  # 1 + 0.5 + 0.5
    assert torch.equal(out["classifier.weight"], torch.full((2, 4), 0.5))
    assert made.receipt.facts["lost"] == [
        {"model": "base", "tensor": "cls.weight", "rule": "of the base alone: no fine-tune has it"}
    ]


def test_every_tensor_is_accounted_for_or_the_merge_stops(tmp_path: Path) -> None:
    a = write(tmp_path / "a", weights(1, w=(3,), extra=(2,)))
    b = write(tmp_path / "b", weights(2, w=(3,)))
    for models in ((a, b), (b, a)):
        with pytest.raises(Refused, match="`extra` of `a` is not in `b`"):
            planned(models)
        plan = planned(models, unmatched="drop")
        assert [m.name for m in plan.made] == ["w"]
        assert list(plan.lost) == [("a", "extra")]


def test_whole_numbers_are_copied_and_others_keep_their_type(tmp_path: Path) -> None:
    one = {"steps": torch.tensor([1, 2]), "mask": torch.tensor([True]), "w": torch.ones(2, dtype=torch.float16)}
    two = {"steps": torch.tensor([3, 4]), "mask": torch.tensor([False]), "w": 2 * torch.ones(2, dtype=torch.float32)}
    a, b = write(tmp_path / "a", one, dtype="float16"), write(tmp_path / "b", two)
    out = tensors(merge([a, b], out=tmp_path / "out").where)
    assert out["steps"].tolist() == [1, 2]
    assert out["mask"].tolist() == [True]
    assert out["w"].dtype == torch.float16
    assert out["w"].tolist() == [1.5, 1.5]
    wide = merge([a, b], out=tmp_path / "wide", dtype="float32").where
    assert tensors(wide)["w"].dtype == torch.float32
    assert json.loads((wide / "config.json").read_text())["dtype"] == "float32"


def test_a_tied_output_embedding_is_the_input_embedding(tmp_path: Path) -> None:
    table = weights(0, **{"model.embed_tokens.weight": (6, 2)})
    apart = write(tmp_path / "apart", {**table, "lm_head.weight": torch.zeros(6, 2)}, tie_word_embeddings=False)
    tied = write(tmp_path / "tied", table, tie_word_embeddings=True)
    out = tensors(merge([apart, tied], out=tmp_path / "out").where)
    torch.testing.assert_close(out["lm_head.weight"], table["model.embed_tokens.weight"] / 2)


def test_a_sentence_transformers_folder_keeps_its_dense_layer(tmp_path: Path) -> None:
    for n, k in (("a", 1.0), ("b", 3.0)):
        folder = write(tmp_path / n, {"w": torch.full((2,), k)})
        write(folder / "2_Dense", {"linear.weight": torch.full((1, 2), k)}, in_features=2)
        (folder / "modules.json").write_text(json.dumps([{"path": "", "type": "x.Transformer"}]))
    merge([tmp_path / "a", tmp_path / "b"], out=tmp_path / "out")
    assert tensors(tmp_path / "out")["w"].tolist() == [2.0, 2.0]
    assert tensors(tmp_path / "out" / "2_Dense")["linear.weight"].tolist() == [[2.0, 2.0]]
    assert (tmp_path / "out" / "modules.json").is_file()


@pytest.mark.parametrize("model_type", ["bert", "vit", "resnet", "convnext", "dinov2"])
def test_what_transformers_saves_is_merged_whole_and_loads(model_type: str, tmp_path: Path) -> None:
    """Classifiers of images, of which another tool writes a fifth of the tensors or none."""
    from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification

    kind = AutoModelForSequenceClassification if model_type == "bert" else AutoModelForImageClassification
    folders = [save_model(tmp_path / f"m{seed}", model_type, head=True, seed=seed) for seed in range(2)]
    merge(folders, out=tmp_path / "out")
    model, report = kind.from_pretrained(tmp_path / "out", output_loading_info=True, local_files_only=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    both = [kind.from_pretrained(f, local_files_only=True).state_dict() for f in folders]
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, (both[0][name] + both[1][name]) / 2, atol=1e-7, rtol=1e-6)


def test_it_refuses_in_words(pair: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = pair
    other = write(tmp_path / "other", {n: torch.zeros(3, 3) for n in weights()})
    small = write(tmp_path / "small", weights(1, **{"embed_tokens.weight": (4, 2)}))
    large = write(tmp_path / "large", weights(1, **{"embed_tokens.weight": (5, 2)}))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "diary.txt").write_text("dear diary")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    cases: list[tuple[type[Problem], str, Callable[[], Any]]] = [
        (Refused, "works on what fine-tunes changed, and no base", lambda: planned([a, b], "ties")),
        (Refused, "`slerp` takes 2 models, not 1", lambda: planned([a], "slerp")),
        (Refused, "models, not 0", lambda: planned([])),
        (Refused, r"shape 30 × 20 in `a` and 3 × 3 in `other`", lambda: planned([a, other])),
        (Refused, "their vocabularies differ", lambda: planned([small, large])),
        (Refused, "this is an adapter", lambda: planned([a, adapter])),
        (Refused, "holds something already", lambda: merge([a, b], out=tmp_path / "full")),
        (Unfit, "no way to merge is called `tise`", lambda: planned([a, b], "tise")),
        (Unfit, "`passthrough` is a recipe", lambda: planned([a, b], "passthrough")),
        (Unfit, "no setting `densty`", lambda: planned([a], "ties", base=b, settings={"densty": 1})),
        (Unfit, "`density` is 'x'", lambda: planned([a], "ties", base=b, settings={"density": "x"})),
        (Unfit, "cannot be written as `bf16`", lambda: planned([a, b], dtype="bf16")),
        (
            Unfit,
            "3 numbers, and there are 2",
            lambda: merge([a, b], settings={"weights": [1, 2, 3]}, out=tmp_path / "o"),
        ),
        (Unreadable, "there is no folder", lambda: planned([a, tmp_path / "nowhere"])),
    ]
    for problem, said, call in cases:
        with pytest.raises(problem) as caught:
            call()
        assert said in str(caught.value), str(caught.value)
    assert left_behind(tmp_path) == []
    assert (tmp_path / "full" / "diary.txt").read_text() == "dear diary"


def test_types_of_which_no_mean_can_be_taken_are_refused(pair: tuple[Path, Path], tmp_path: Path) -> None:
    eight = write(tmp_path / "eight", {n: t.to(torch.float8_e4m3fn) for n, t in weights().items()})
    for models in ([eight, pair[0]], [pair[0], eight]):
        with pytest.raises(Refused, match="stored as F8_E4M3"):
            planned(models)


def test_a_method_of_ones_own_is_run(pair: tuple[Path, Path], tmp_path: Path) -> None:
    made = merge(pair, UniformSoup(), out=tmp_path / "out")
    assert made.plan.made[0].kind == "merging"
    torch.testing.assert_close(tensors(made.where)["two.bias"], (weights(1)["two.bias"] + weights(2)["two.bias"]) / 2)
    with pytest.raises(Unfit, match="takes no settings"):
        planned(pair, UniformSoup(), settings={"x": 1})


@pytest.mark.parametrize("damage", ["short", "header", "index", "escape"])
def test_damaged_and_hostile_folders_are_named(pair: tuple[Path, Path], tmp_path: Path, damage: str) -> None:
    file = pair[1] / "model.safetensors"
    if damage == "short":
        file.write_bytes(file.read_bytes()[:-5])
    elif damage == "header":
        file.write_bytes(b"\xff" * 8 + file.read_bytes())
    else:
        file.rename(pair[1] / "part.safetensors")
        named = "../a/model.safetensors" if damage == "escape" else "gone.safetensors"
        (pair[1] / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": named}}))
    with pytest.raises(Unreadable) as caught:
        merge(pair, out=tmp_path / "out")
    assert "b" in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert left_behind(tmp_path) == []


def test_a_full_disk_leaves_nothing(pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shards.os, "pwrite", full)
        with pytest.raises(Unreadable, match="the disk is full"):
            merge(pair, out=tmp_path / "out")
    assert left_behind(tmp_path) == []
    assert not (tmp_path / "out").exists()
    usage = type("usage", (), {"free": 100})
    monkeypatch.setattr("headstart.combination.writing.shutil.disk_usage", lambda _: usage)
    with pytest.raises(OverBudget, match=r"the disk has 0\.00 GB left"):
        merge(pair, out=tmp_path / "out")


MANY = {f"t{i:02d}": (400, 30) for i in range(24)}
SLOW = """
    import sys
    import time
    from headstart.combination.merging import merge
    from headstart.io import shards
    shards.FLUSH_BYTES = 1
    def report(done, total):
        print(done, flush=True)
        time.sleep(0.02)
        return True
    merge(sys.argv[3:], "dare", base=sys.argv[2], out=sys.argv[1], threads=1, report=report)
"""


@pytest.mark.parametrize("after", [1, 7, 20])
def test_killed_at_any_tensor_it_goes_on_and_the_bits_are_the_same(after: int, tmp_path: Path) -> None:
    folders = [write(tmp_path / f"m{i}", weights(i, torch.bfloat16, **MANY)) for i in range(3)]
    whole = merge(folders[1:], "dare", base=folders[0], out=tmp_path / "whole").where
    code = [sys.executable, "-c", textwrap.dedent(SLOW), str(tmp_path / "out"), *map(str, folders)]
    with subprocess.Popen(code, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(after):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "out").exists()
    assert len(left_behind(tmp_path)) == 1
    told: list[int] = []
    made = merge(
        folders[1:], "dare", base=folders[0], out=tmp_path / "out", report=lambda done, total: told.append(done) is None
    )
    assert (made.where / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert len(told) <= len(MANY) - max(0, after - 2)  # at most what was being written is done again
    assert told[-1] == made.plan.bytes_written
    assert left_behind(tmp_path) == []


def test_stopped_it_goes_on_and_a_changed_merge_begins_anew(tmp_path: Path) -> None:
    folders = [write(tmp_path / f"m{i}", weights(i, **MANY)) for i in range(2)]

    def three(done: int, total: int) -> bool:
        return done * 8 < total

    with pytest.raises(Stopped):
        merge(folders, out=tmp_path / "out", report=three)
    assert len(left_behind(tmp_path)) == 1
    told: list[int] = []
    merge(folders, settings={"weights": [1, 2]}, out=tmp_path / "out", report=lambda d, t: told.append(d) is None)
    assert len(told) == len(MANY)
    assert left_behind(tmp_path) == []


def test_two_merges_into_one_folder_keep_out_of_each_others_way(tmp_path: Path) -> None:
    folders = [write(tmp_path / f"m{i}", weights(i, **MANY)) for i in range(2)]
    said: list[str] = []

    def meanwhile(done: int, total: int) -> bool:
        if not said:
            for settings in ({}, {"weights": [1, 2]}):
                with pytest.raises(Refused) as caught:
                    merge(folders, settings=settings, out=tmp_path / "out")
                said.append(caught.value.what)
        return True

    made = merge(folders, out=tmp_path / "out", report=meanwhile, threads=1)
    assert said == ["another merge is writing to this folder"] * 2
    torch.testing.assert_close(tensors(made.where)["t00"], (weights(0, **MANY)["t00"] + weights(1, **MANY)["t00"]) / 2)


def test_replacing_a_folder_is_asked_for(pair: tuple[Path, Path], tmp_path: Path) -> None:
    merge(pair, out=tmp_path / "out")
    merge(pair, "slerp", out=tmp_path / "out", overwrite=True)
    assert json.loads((tmp_path / "out" / RECEIPT).read_text())["method"] == "slerp"


def test_what_is_read_is_never_replaced(pair: tuple[Path, Path], tmp_path: Path) -> None:
    models = [Path(shutil.copytree(p, tmp_path / "models" / name)) for p, name in zip(pair, "ab", strict=True)]
    (tmp_path / "link").symlink_to(tmp_path / "models")
    for out in (models[0], tmp_path / "models", tmp_path / "link"):
        with pytest.raises(Refused, match="is read, and lies in the folder that --overwrite would replace"):
            merge(models, out=out, overwrite=True)
    assert all((m / "model.safetensors").is_file() for m in models)
    assert merge(models, out=tmp_path / "models" / "c", overwrite=True).where.is_dir()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", ["linear", "task_arithmetic", "slerp"])
def test_numbers_that_are_not_finite_are_told_with_whose_they_are(
    method: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    odd, folders = weights(3, dtype), [write(tmp_path / n, weights(i, dtype)) for i, n in enumerate(("base", "good"))]
    odd["one.weight"][29, 19] = float("nan")
    folders.append(write(tmp_path / "odd", odd))
    bases = {"base": folders[0]} if method == "task_arithmetic" else {}
    made = merge(folders[1:], method, out=tmp_path / "out", **bases)
    (note,) = made.receipt.warnings
    what = "hold, or are made of, numbers that are not finite"
    assert note == f"1 of 2 tensors {what}, such as `one.weight`: it is so in `odd`"
    fine = merge([folders[1], folders[1]], method, out=tmp_path / "fine", **bases)
    assert fine.receipt.warnings == ()


def test_checkpoints_in_the_folder_of_a_model_are_no_part_of_it(tmp_path: Path) -> None:
    """A trainer leaves them beside the last model; parts of a sentence encoder are no models of their own."""
    folders = [write(tmp_path / n, weights(i)) for i, n in enumerate("ab")]
    for folder in folders:
        old, dense = write(folder / "checkpoint-500", weights(7)), write(folder / "2_Dense", {"linear": torch.ones(2)})
        (old / "config.json").write_text(json.dumps({"architectures": ["BertModel"], "model_type": "bert"}))
        (dense / "config.json").write_text(json.dumps({"in_features": 2}))
    made = merge(folders, out=tmp_path / "out").where
    assert sorted(p.name for p in made.iterdir() if p.is_dir()) == ["2_Dense"]
    assert load_file(made / "model.safetensors").keys() == weights(0).keys()


def test_a_result_in_a_folder_that_is_read_is_refused(pair: tuple[Path, Path]) -> None:
    """Its weights would be read as a further part of that model, as `2_Dense/` is."""
    before = sorted(pair[0].rglob("*"))
    with pytest.raises(Refused, match=f"would lie in the folder of `{pair[0].name}`"):
        merge(pair, out=pair[0] / "merged")
    assert sorted(pair[0].rglob("*")) == before


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_the_configuration_tells_the_type_of_the_result_where_the_base_decides_it(key: str, tmp_path: Path) -> None:
    """transformers loads weights in the type that the configuration names: float32 would be rounded again."""
    wide, narrow = write(tmp_path / "base", weights(0)), write(tmp_path / "tuned", weights(1, torch.bfloat16))
    for folder, dtype in ((wide, "float32"), (narrow, "bfloat16")):
        (folder / "config.json").write_text(json.dumps({key: dtype}))
    made = merge([narrow], "wise_ft", base=wide, out=tmp_path / "out").where
    assert {t.dtype for t in load_file(made / "model.safetensors").values()} == {torch.float32}
    assert json.loads((made / "config.json").read_text())[key] == "float32"
    plain = merge([narrow, wide], out=tmp_path / "plain").where
    assert json.loads((plain / "config.json").read_text())[key] == "bfloat16"


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
@pytest.mark.parametrize("method", ["ties", "sce", "magmax", "pcb", "breadcrumbs"])
def test_numbers_that_are_not_finite_are_told_also_where_they_are_trimmed_away(
    method: str, odd: float, tmp_path: Path
) -> None:
    base, good = (write(tmp_path / n, weights(i)) for i, n in enumerate(("base", "good")))
    spoilt = weights(3)
    spoilt["one.weight"][29, 19] = odd
    made = merge([good, write(tmp_path / "odd", spoilt)], method, base=base, out=tmp_path / "out")
    (note,) = made.receipt.warnings
    assert "numbers that are not finite, such as `one.weight`: it is so in `odd`" in note
    assert merge([good, good], method, base=base, out=tmp_path / "fine").receipt.warnings == ()


def test_a_running_variance_that_falls_below_zero_is_told(tmp_path: Path) -> None:
    held = {n: {"bn.running_var": torch.full((4,), v)} for n, v in (("base", 1.0), ("one", 0.4), ("two", 0.4))}
    base, *folders = (write(tmp_path / n, w) for n, w in held.items())
    said: dict[str, Any] = {"method": "task_arithmetic", "base": base}
    below = merge(folders, settings={"scale": 1.0}, out=tmp_path / "below", **said).receipt.warnings
    assert sum("1 running variances fell below 0 in some entries, such as `bn.running_var`" in w for w in below) == 1
    above = merge(folders, settings={"scale": 0.5}, out=tmp_path / "above", **said).receipt.warnings
    assert not any("below 0" in w for w in above)


def test_numbers_that_a_merge_makes_infinite_are_told_also_by_the_call_that_goes_on(tmp_path: Path) -> None:
    large = {n: torch.full((50,), 6e4).half() for n in ("a", "b", "c")}
    folders = [write(tmp_path / n, large) for n in ("one", "two")]
    said: dict[str, Any] = {"settings": {"weights": [1, 1], "normalize": False}, "out": tmp_path / "out", "threads": 1}
    with pytest.raises(Stopped):
        merge(folders, report=lambda done, _: done < 200, **said)
    (note,) = merge(folders, **said).receipt.warnings
    what = "hold, or are made of, numbers that are not finite"
    assert note.startswith(f"3 of 3 tensors {what}, such as `a`: it is so in no model")


def test_a_folder_that_is_refused_is_refused_before_rows_are_read(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spent(*_: Any, **__: Any) -> None:
        raise AssertionError("rows were read")

    monkeypatch.setattr("headstart.combination.merging.with_rows", spent)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"method": "regmean", "models": [str(p) for p in pair]}))
    for out, overwrite, said in ((tmp_path / "full", False, "holds something"), (pair[0].parent, True, "is read, and")):
        with pytest.raises(Refused, match=said):
            merge(pair, "regmean", out=out, overwrite=overwrite)
        with pytest.raises(Refused, match=said):
            merge_recipe(recipe, out=out, overwrite=overwrite)


@pytest.mark.parametrize("method", ["iso_c", "opcm"])
def test_numbers_that_cannot_be_decomposed_are_named(method: str, pair: tuple[Path, Path], tmp_path: Path) -> None:
    odd = weights(3)
    name = next(n for n, t in odd.items() if t.dim() == 2)
    odd[name][0, 0] = float("nan")
    base = write(tmp_path / "base", weights(0))
    with pytest.raises(Unfit, match=f"`{name}` of a model holds numbers that are not finite"):
        merge([write(tmp_path / "odd", odd), pair[0]], method, base=base, out=tmp_path / "out")
    assert left_behind(tmp_path) == []


CHECKPOINT = shards.Checkpoint


class Counting:
    """A reader that counts what is asked of it."""

    count = 0

    def __init__(self, tensors: Any) -> None:
        self._inner = CHECKPOINT(tensors)

    def __enter__(self) -> Counting:
        self._inner.__enter__()
        return self

    def __exit__(self, *told: Any) -> None:
        self._inner.__exit__(*told)

    def read(self, name: str, start: int, into: np.ndarray[Any, Any]) -> None:
        Counting.count += into.nbytes
        self._inner.read(name, start, into)


STREAMED = [n for kind in ("merging", "trimming", "weighting") for n in catalogue.entries(f"combination.{kind}")]


@pytest.mark.parametrize(("method", "settings"), [*((m, {}) for m in STREAMED), ("sce", {"density": 0.5})])
def test_the_forecast_of_bytes_holds(
    method: str, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [write(tmp_path / f"m{i}", weights(i, torch.bfloat16, a=(90, 50), b=(50,))) for i in range(3)]
    most = catalogue.entry(kind_of(method), method).needs.most
    plan = planned(folders[1:][:most], method, base=folders[0], settings=settings)
    cost = forecasts.forecast(plan, tmp_path / "out")
    monkeypatch.setattr(adapted, "Checkpoint", Counting)
    Counting.count = 0
    made: Merged = carried_out(plan, tmp_path / "out")  # a plan has looked at some thousand weights, in any model
    assert Counting.count == cost.bytes_read
    assert sum(t.numel() * t.element_size() for t in tensors(made.where).values()) == cost.bytes_written
    assert cost.seconds > 0
    assert cost.peak_bytes > 0


PEAK = """
    import json, sys
    from pathlib import Path
    from headstart.combination import forecasts
    from headstart.combination.merging import carried_out, planned
    out, method, settings, told, *folders = sys.argv[1:]
    plan = planned(folders[1:], method, base=folders[0], settings=json.loads(settings))
    if told == "forecast":
        print(forecasts.forecast(plan, Path(out)).peak_bytes)
    else:
        carried_out(plan, out)
        lines = Path("/proc/self/status").read_text().splitlines()
        print(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")))
"""


LARGE: list[tuple[str, dict[str, Any]]] = [
    *((m, {}) for m in ("linear", "ties", "dare", "della", "tsv_m", "iso_c", "iso_cts", "knots", "arcee_fusion")),
    *((m, {}) for m in ("slerp", "model_stock", "karcher", "breadcrumbs", "pcb", "ram", "consensus_ta", "magmax")),
    *((m, {}) for m in ("task_arithmetic", "nuslerp", "multi_slerp", "lines", "ema", "wise_ft", "uniform_soup")),
    *((m, {}) for m in ("opcm", "ramplus", "nearswap")),
    ("sce", {"density": 0.5}),
    ("wudi", {"steps": 2}),
]


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(6000, 1500), (3000, 3000)])
@pytest.mark.parametrize(("method", "settings"), LARGE, ids=[name for name, _ in LARGE])
def test_the_forecast_of_memory_holds_within_a_tenth(
    method: str, settings: dict[str, Any], shape: tuple[int, int], tmp_path: Path
) -> None:
    """Of merges in tiles most of it is Python and torch, as it is of any model's."""
    most = catalogue.entry(kind_of(method), method).needs.most or 3
    folders = [write(tmp_path / f"m{i}", weights(i, torch.bfloat16, a=shape, b=(700, 700))) for i in range(1 + most)]
    said = [str(tmp_path / "out"), method, json.dumps(settings)]
    peaks = {}
    for told in ("forecast", "run"):
        words = [sys.executable, "-c", textwrap.dedent(PEAK), *said, told, *map(str, folders)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        peaks[told] = int(done.stdout.strip().splitlines()[-1])
    assert 0.9 < peaks["forecast"] / peaks["run"] < 1.1, peaks
