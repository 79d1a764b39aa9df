"""Heads that stay with their models: every folder is a model that transformers loads, and the body lies there once.

The reference is the mean of the state dicts that transformers itself loads, with each model's own head put back.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from headstart.combination import forecasts
from headstart.combination.heads import head_of, places_of
from headstart.combination.merging import merge, planned
from headstart.combination.writing import RECEIPT
from headstart.core import OverBudget, Refused
from headstart.io import atomic, model_folders
from tiny_models import SMALL_IMAGE, config_for, save_model, save_tokenizer

LABELS = {"mails": ("spam", "ham"), "chats": ("low", "mid", "high"), "news": ("x", "y")}
HEADS = {  # of each type of model, the modules outside its body
    "bert": {"classifier"}, "roberta": {"classifier"}, "distilbert": {"pre_classifier", "classifier"},
    "deberta-v2": {"pooler", "classifier"}, "electra": {"classifier"}, "mpnet": {"classifier"}, "vit": {"classifier"},
    "resnet": {"classifier"}, "convnext": {"classifier"},
}  # fmt: skip


def kind_of(model_type: str) -> Any:
    from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification

    return AutoModelForImageClassification if model_type in SMALL_IMAGE else AutoModelForSequenceClassification


def classifier(folder: Path, model_type: str, labels: tuple[str, ...], seed: int) -> Path:
    """A classifier of random weights with labels of its own, as transformers saves it."""
    from transformers import ViTImageProcessorPil

    named = {"id2label": dict(enumerate(labels)), "label2id": {v: i for i, v in enumerate(labels)}}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind_of(model_type).from_config(config_for(model_type, **named))
        for value in model.state_dict().values():
            if value.is_floating_point():
                value += 0.1 * torch.rand_like(value)
    model.save_pretrained(folder)
    if model_type in SMALL_IMAGE:
        ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder)
    else:
        save_tokenizer(folder, longest=20 + seed)
    return folder


def three(tmp_path: Path, model_type: str) -> list[Path]:
    return [classifier(tmp_path / n, model_type, labels, i) for i, (n, labels) in enumerate(LABELS.items())]


@pytest.mark.parametrize("model_type", list(HEADS))
def test_every_folder_is_a_model_with_the_merged_body_and_its_own_head(model_type: str, tmp_path: Path) -> None:
    folders = three(tmp_path, model_type)
    merge(folders, out=tmp_path / "out", heads="separate", shard_bytes=8000)
    kind = kind_of(model_type)
    states = [kind.from_pretrained(f, local_files_only=True).state_dict() for f in folders]
    for place, state in zip(LABELS, states, strict=True):
        model, report = kind.from_pretrained(tmp_path / "out" / place, output_loading_info=True, local_files_only=True)
        assert not any(report.values()), report
        assert tuple(model.config.id2label.values()) == LABELS[place]
        for name, made in model.state_dict().items():
            own = name.split(".")[0] in HEADS[model_type]
            if made.is_floating_point() and own:
                assert torch.equal(made, state[name]), name
            elif made.is_floating_point():
                mean = torch.stack([s[name].double() for s in states]).mean(dim=0)
                torch.testing.assert_close(made.double(), mean, atol=1e-7, rtol=1e-6)
        names = {p.name for p in folders[0].iterdir()} - {"model.safetensors"}
        assert names <= {p.name for p in (tmp_path / "out" / place).iterdir()}


def test_the_disk_holds_the_body_once_and_the_forecast_says_so(tmp_path: Path) -> None:
    folders = three(tmp_path, "bert")
    plan = planned(folders, heads="separate")
    made = merge(folders, out=tmp_path / "out", heads="separate", shard_bytes=8000)
    files = [f.stat() for f in made.where.rglob("*.safetensors")]
    headers = {}
    for file in made.where.rglob("*.safetensors"):
        headers[file.stat().st_ino] = 8 + int.from_bytes(file.read_bytes()[:8], "little")
    once = {s.st_ino: s.st_size for s in files}
    assert sum(once.values()) - sum(headers.values()) == plan.bytes_written == made.receipt.facts["bytes"]
    assert forecasts.forecast(plan, tmp_path / "other").bytes_written == plan.bytes_written
    assert sum(s.st_size for s in files) > 2 * sum(once.values())
    assert made.receipt.facts["shared_by"] == "link"
    shared = [f for f in made.where.rglob("*.safetensors") if f.stat().st_nlink == 3]
    assert shared
    assert all(not f.stat().st_mode & 0o222 for f in shared)  # saving into one folder must not change the others


def test_the_account_lies_above_the_models_and_each_has_its_own_files(tmp_path: Path) -> None:
    folders = three(tmp_path, "bert")
    made = merge(folders, out=tmp_path / "out", heads="separate")
    assert sorted(p.name for p in made.where.iterdir()) == ["README.md", "chats", "mails", RECEIPT, "news"]
    facts = json.loads((made.where / RECEIPT).read_text())["facts"]
    assert facts["folders"] == [{"folder": n, "model": n, "labels": list(v)} for n, v in LABELS.items()]
    assert {"how": "copied", "rule": "head of `chats`", "tensors": 2} in facts["tensors"]
    for at, name in enumerate(LABELS):
        held = json.loads((made.where / name / "tokenizer_config.json").read_text())
        assert held["model_max_length"] == 20 + at
    index = json.loads((made.where / "news" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == {f"model-0000{i}-of-00002.safetensors" for i in (1, 2)}
    assert index["metadata"]["total_size"] == model_folders.read(made.where / "news").bytes


def test_methods_that_need_a_base_drop_its_head_and_leave_the_others(tmp_path: Path) -> None:
    folders = three(tmp_path, "roberta")
    one = {"scale": 1.0}
    made = merge(folders[1:], "task_arithmetic", base=folders[0], heads="separate", settings=one, out=tmp_path / "out")
    lost = [t["tensor"] for t in made.receipt.facts["lost"]]
    assert lost == sorted(f"classifier.{m}.{k}" for m in ("dense", "out_proj") for k in ("bias", "weight"))
    base, *tuned = (load_file(f / "model.safetensors") for f in folders)
    name = "roberta.encoder.layer.0.attention.self.query.weight"
    body = load_file(made.where / "chats" / "model-00001-of-00002.safetensors")
    exact = base[name].double() + sum(t[name].double() - base[name].double() for t in tuned)
    torch.testing.assert_close(body[name].double(), exact, atol=1e-6, rtol=1e-6)
    head = load_file(made.where / "news" / "model-00002-of-00002.safetensors")
    assert all(torch.equal(t, tuned[1][n]) for n, t in head.items())
    assert len(head) == 4


def test_models_of_equal_labels_are_kept_apart_when_that_is_asked(tmp_path: Path) -> None:
    folders = [save_model(tmp_path / n, "bert", head=True, seed=i) for i, n in enumerate("ab")]
    merge(folders, heads="separate", out=tmp_path / "out")
    for folder in folders:
        ours = load_file(tmp_path / "out" / folder.name / "model-00002-of-00002.safetensors")
        theirs = load_file(folder / "model.safetensors")
        assert ours.keys() == {"classifier.weight", "classifier.bias"}
        assert all(torch.equal(t, theirs[n]) for n, t in ours.items())


def test_heads_take_the_type_of_the_result(tmp_path: Path) -> None:
    folders = three(tmp_path, "bert")
    merge(folders, heads="separate", dtype="bfloat16", out=tmp_path / "out")
    for folder in folders:
        held = load_file(tmp_path / "out" / folder.name / "model-00002-of-00002.safetensors")
        theirs = load_file(folder / "model.safetensors")
        assert all(torch.equal(t, theirs[n].bfloat16()) for n, t in held.items())
        assert json.loads((tmp_path / "out" / folder.name / "config.json").read_text())["dtype"] == "bfloat16"


def write(folder: Path, tensors: Mapping[str, torch.Tensor], **config: Any) -> Path:
    folder.mkdir(parents=True)
    save_file(dict(tensors), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def named(*labels: str) -> dict[str, Any]:
    return {"architectures": ["TForSequenceClassification"], "id2label": {str(i): v for i, v in enumerate(labels)}}


def test_names_of_models_become_folders_below_the_result(tmp_path: Path) -> None:
    tensors = {"w": torch.ones(3), "classifier.weight": torch.ones(2, 3)}
    names = ("a/x", "b/x", "a-x", "merge.json", ".hidden", "README.md")
    folders = [write(tmp_path / n, tensors, **named("u", "v")) for n in names]
    (write(tmp_path / "c", tensors, **named("u", "v")) / "inner").mkdir()
    folders.append(tmp_path / "c" / "inner" / "..")  # its last part leads out of any folder
    made = merge(folders, heads="separate", out=tmp_path / "out" / "deep")
    found = sorted(p.name for p in made.where.iterdir() if p.is_dir())
    assert found == ["README.md-2", "a-x", "a-x-2", "b-x", "hidden", "merge.json-2", "model"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["deep"]
    assert places_of(["2_Dense"], {"2_dense"}) == ["2_Dense-2"]


def test_parts_beside_the_model_are_shared_too(tmp_path: Path) -> None:
    for n, k in (("a", 1.0), ("b", 3.0)):
        tensors = {"m.w": torch.full((2,), k), "m.v": torch.ones(1), "classifier.weight": torch.full((2, 2), k)}
        folder = write(tmp_path / n, {})
        (folder / "model.safetensors").unlink()
        write(folder / "0_T", tensors, **named(*n * 2))
        write(folder / "2_Dense", {"linear.weight": torch.full((1, 2), k)}, in_features=2)
        (folder / "modules.json").write_text(json.dumps([{"path": "0_T", "type": "x.Transformer"}]))
    merge([tmp_path / "a", tmp_path / "b"], heads="separate", out=tmp_path / "out")
    for n, k in (("a", 1.0), ("b", 3.0)):
        held = model_folders.read(tmp_path / "out" / n)
        assert set(held.tensors) == {"m.w", "m.v", "classifier.weight", "2_Dense/linear.weight"}
        dense = load_file(tmp_path / "out" / n / "2_Dense" / "model.safetensors")
        assert dense["linear.weight"].tolist() == [[2.0, 2.0]]
        head = load_file(tmp_path / "out" / n / "0_T" / "model-00002-of-00002.safetensors")
        assert head["classifier.weight"].tolist() == [[k, k]] * 2
        assert held.labels == (n, n)


def test_it_refuses_what_has_no_head_and_bodies_that_cannot_share_files(tmp_path: Path) -> None:
    good = write(tmp_path / "good", {"m.w": torch.ones(2), "classifier.weight": torch.ones(2, 2)}, **named("u", "v"))
    bare = write(tmp_path / "bare", {"m.w": torch.ones(2)})
    moved = write(tmp_path / "moved", {"w": torch.ones(2), "classifier.weight": torch.ones(2, 2)}, **named("u", "v"))
    with pytest.raises(Refused, match="`bare` has no head that gives labels"):
        planned([good, bare], heads="separate")
    with pytest.raises(Refused, match=r"`m\.w` of `good` is called `w` in `moved`"):
        planned([good, moved], heads="separate")
    assert head_of(model_folders.read(good)) == {"classifier.weight"}


def no_links(patch: pytest.MonkeyPatch) -> None:
    """A disk without links and shared blocks."""

    def refused(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    patch.setattr(atomic.os, "link", refused)
    patch.setattr(atomic.fcntl, "ioctl", refused)


def test_without_links_the_body_is_copied_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = three(tmp_path, "bert")
    plan = planned(folders, heads="separate")
    no_links(monkeypatch)
    cost = forecasts.forecast(plan, tmp_path / "out")
    made = merge(folders, heads="separate", out=tmp_path / "out")
    whole = sum(model_folders.read(made.where / n).bytes for n in LABELS)
    assert made.receipt.facts["bytes"] == cost.bytes_written == whole > 2 * plan.bytes_written
    assert made.receipt.facts["shared_by"] == "copy"
    assert all(f.stat().st_nlink == 1 for f in made.where.rglob("*.safetensors"))
    usage = type("usage", (), {"free": plan.bytes_written + 100})  # enough for links, and links there are not
    monkeypatch.setattr("headstart.combination.writing.shutil.disk_usage", lambda _: usage)
    with pytest.raises(OverBudget):
        merge(folders, heads="separate", out=tmp_path / "more")


SLOW = """
    import os, signal, sys
    from headstart.combination.merging import merge
    from headstart.io import atomic, shards
    shards.FLUSH_BYTES = 1
    twin, count = shards.twin, [0]
    def killed(*places):
        count[0] += 1
        if count[0] == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return twin(*places)
    shards.twin = killed
    merge(sys.argv[2:], out=sys.argv[1], heads="separate", shard_bytes=8000)
"""


def test_killed_between_two_links_it_goes_on(tmp_path: Path) -> None:
    folders = three(tmp_path, "bert")
    whole = merge(folders, out=tmp_path / "whole", heads="separate", shard_bytes=8000).where
    code = [sys.executable, "-c", textwrap.dedent(SLOW), str(tmp_path / "out"), *map(str, folders)]
    assert subprocess.run(code, check=False, capture_output=True).returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    told: list[int] = []
    made = merge(
        folders, out=tmp_path / "out", heads="separate", shard_bytes=8000, report=lambda d, _: told.append(d) is None
    )
    assert told == []  # every tensor was on the disk
    for file in whole.rglob("*.safetensors"):
        assert (made.where / file.relative_to(whole)).read_bytes() == file.read_bytes()
    assert [p for p in os.listdir(tmp_path) if p.startswith(atomic.PART)] == []
    again = merge(folders[:2], out=tmp_path / "out", heads="separate", overwrite=True)
    assert sorted(p.name for p in again.where.iterdir() if p.is_dir()) == ["chats", "mails"]
