"""Saved members predict what they predicted, alone and with the libraries that their manifest names."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from headstart.core import Problem, Refused, Source, Unreadable
from headstart.io import sources
from headstart.io.members import open_member, save_adapted, save_base
from headstart.numerics.artifacts import Delta, Head, Model
from tiny_models import images, save_model, texts

Shelf = Callable[..., Path]
CLASSES = ("no", "perhaps", "yes")
SAME = {"rtol": 1e-5, "atol": 1e-5}


def source_of(folder: Path) -> Source:
    (source,), failed = sources.scan(folder)
    assert not failed, failed
    return source


def head_for(width: int, outputs: int = 3, link: Any = "softmax") -> Head:
    draw = np.random.default_rng(1)
    return Head(
        draw.normal(size=(outputs, width), scale=width**-0.5).astype(np.float32),
        draw.normal(size=outputs).astype(np.float32),
        link,
    )


def rows_for(source: Source, tmp_path: Path) -> pa.Table:
    return images(tmp_path, 4) if source.modality == "image" else texts(4)


def trained(source: Source, rows: pa.Table) -> tuple[Model, Any]:
    """The source with all its parameters moved, and what it then predicts."""
    with sources.opened(source) as here:
        encoder = here.encoder()
    with torch.no_grad():
        for parameter in encoder.module.parameters():
            parameter.add_(0.05 * torch.sin(torch.arange(parameter.numel()).view_as(parameter)))
    head = head_for(encoder.width)
    tensors = {n: t.clone() for n, t in encoder.module.state_dict().items()}
    with torch.no_grad():
        features = encoder.forward_features(encoder.collate(rows, range(rows.num_rows)))
    return Model(tensors, head), head(features.numpy())


def low_rank(source: Source, rows: pa.Table) -> tuple[Delta, Any]:
    """A LoRA delta with weights that are not zero, made with peft, and what it then predicts."""
    import peft

    with sources.opened(source) as here:
        encoder = here.encoder()
    config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=sorted(encoder.linear_layers))
    adapted = peft.get_peft_model(encoder.module, config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.1 * torch.cos(torch.arange(parameter.numel())).view_as(parameter))
        features = encoder.forward_features(encoder.collate(rows, range(rows.num_rows)))
    head = head_for(encoder.width)
    tensors = {k: v.detach().clone() for k, v in peft.get_peft_model_state_dict(adapted).items()}
    assert encoder.fingerprint == source.weights
    return Delta(source.weights, "lora", tensors, config.to_dict(), head), head(features.numpy())


def st_folder(shelf: Shelf, folder: Path) -> Path:
    """A sentence-transformers folder with a dense layer and normalisation."""
    library = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")
    from sentence_transformers.models import Dense, Normalize, Pooling, Transformer

    parts = [Transformer(str(shelf("bert")), max_seq_length=20), Pooling(16, "max"), Dense(16, 7), Normalize()]
    library.SentenceTransformer(modules=parts, device="cpu").save(str(folder))
    return folder


@pytest.mark.parametrize(
    ("model", "loads"),
    [
        ("bert", "sentence-transformers"),
        ("roberta", "sentence-transformers"),
        ("vit", "transformers:ViTForImageClassification"),
        ("deit", "transformers:DeiTForImageClassification"),
        ("resnet", "transformers:ResNetForImageClassification"),
        ("convnext", "transformers:ConvNextForImageClassification"),
        ("swin", "transformers:SwinForImageClassification"),
        ("dinov2", "transformers"),
    ],
)
def test_a_head_is_saved_with_its_source(shelf: Shelf, tmp_path: Path, model: str, loads: str) -> None:
    source = source_of(shelf(model))
    rows, head, folder = rows_for(source, tmp_path), head_for(source.facts["width"]), tmp_path / "member"
    said = save_adapted(source, head, folder, classes=CLASSES, task="single_label")
    assert said["loads"] == loads
    with sources.opened(source) as here:
        expected = head(here.features(rows))
    np.testing.assert_allclose(open_member(folder)(rows), expected, **SAME)
    assert not [p for p in folder.rglob("*") if p.suffix in (".bin", ".pt", ".pkl", ".part")]
    if loads.startswith("transformers:"):
        assert_stock_class_agrees(folder, loads, rows, expected)
    elif model == "bert":
        assert_sentence_transformers_agrees(folder, rows, expected)


def assert_stock_class_agrees(folder: Path, loads: str, rows: pa.Table, expected: Any) -> None:
    import transformers

    whole = getattr(transformers, loads.partition(":")[2]).from_pretrained(folder).eval()
    assert [whole.config.id2label[i] for i in range(3)] == list(CLASSES)
    with sources.opened(source_of(folder)) as here:
        pixels = here.encoder().collate(rows, range(rows.num_rows)).pixels  # type: ignore[union-attr]  # of images
    with torch.no_grad():
        np.testing.assert_allclose(whole(pixel_values=pixels).logits.softmax(-1), expected, rtol=1e-4, atol=1e-4)


def assert_sentence_transformers_agrees(folder: Path, rows: pa.Table, expected: Any) -> None:
    library = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")
    tensors = load_file(folder / "head.safetensors")
    encoded = library.SentenceTransformer(str(folder), device="cpu").encode(rows["text"].to_pylist())
    logits = torch.from_numpy(encoded) @ tensors["weight"].T + tensors["bias"]
    np.testing.assert_allclose(logits.softmax(-1), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model", ["bert", "vit", "resnet", "dinov2"])
def test_a_retrained_model_is_saved_whole(shelf: Shelf, tmp_path: Path, model: str) -> None:
    source = source_of(shelf(model))
    rows, folder = rows_for(source, tmp_path), tmp_path / "member"
    artifact, expected = trained(source, rows)
    said = save_adapted(source, artifact, folder, classes=CLASSES, task="single_label")
    found = open_member(folder)(rows)
    np.testing.assert_allclose(found, expected, **SAME)
    with sources.opened(source) as here:
        assert np.abs(found - artifact.head(here.features(rows))).max() > 1e-3
    if said["loads"].startswith("transformers:"):
        assert_stock_class_agrees(folder, said["loads"], rows, expected)
    elif model == "bert":
        assert_sentence_transformers_agrees(folder, rows, expected)


def test_a_retrained_checkpoint_with_a_stored_head_keeps_the_pooling_of_its_features(
    shelf: Shelf, tmp_path: Path
) -> None:
    source, rows = source_of(shelf("bert", head=True)), texts(4)
    artifact, expected = trained(source, rows)
    save_adapted(source, artifact, tmp_path / "member", classes=CLASSES, task="single_label")
    np.testing.assert_allclose(open_member(tmp_path / "member")(rows), expected, **SAME)
    assert source_of(tmp_path / "member").facts["pooling"] == "cls"
    assert_sentence_transformers_agrees(tmp_path / "member", rows, expected)


@pytest.mark.parametrize("form", ["head", "model", "delta"])
def test_a_sentence_transformers_folder_keeps_its_modules(shelf: Shelf, tmp_path: Path, form: str) -> None:
    source, rows = source_of(st_folder(shelf, tmp_path / "st")), texts(4)
    artifact: Head | Model | Delta
    if form == "head":
        artifact = head_for(7)
        with sources.opened(source) as here:
            expected = artifact(here.features(rows))
    else:
        artifact, expected = (trained if form == "model" else low_rank)(source, rows)
    save_adapted(source, artifact, tmp_path / "member", classes=CLASSES, task="single_label")
    np.testing.assert_allclose(open_member(tmp_path / "member")(rows), expected, **SAME)
    if form != "delta":
        assert_sentence_transformers_agrees(tmp_path / "member", rows, expected)


@pytest.mark.parametrize("model", ["bert", "vit", "resnet"])
def test_an_adapter_brings_its_base_and_plain_peft_loads_it(shelf: Shelf, tmp_path: Path, model: str) -> None:
    import peft
    from transformers import AutoModel

    source, folder = source_of(shelf(model)), tmp_path / "member"
    rows = rows_for(source, tmp_path)
    artifact, expected = low_rank(source, rows)
    said = save_adapted(source, artifact, folder, classes=CLASSES, task="single_label")
    assert (said["loads"], said["adapter"]) == ("peft", True)
    np.testing.assert_allclose(open_member(folder)(rows), expected, **SAME)
    plain = peft.PeftModel.from_pretrained(AutoModel.from_pretrained(folder / "base"), folder / "adapter").eval()
    own = {n: p for n, p in plain.named_parameters() if "lora_" in n}
    assert len(own) == len(artifact.tensors)
    with sources.opened(source) as here, torch.no_grad():
        encoder = here.encoder()
        batch: Any = encoder.collate(rows, range(4))
        out = plain(**(batch.tensors if model == "bert" else {"pixel_values": batch.pixels}))
        if model == "bert":
            mask = batch.tensors["attention_mask"][..., None]
            features = (out.last_hidden_state * mask).sum(1) / mask.sum(1)
        else:
            features = out.last_hidden_state[:, 0] if model == "vit" else out.pooler_output.flatten(1)
    np.testing.assert_allclose(artifact.head(features.numpy()), expected, rtol=1e-4, atol=1e-4)


def test_an_adapter_of_another_base_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    artifact, _ = low_rank(source_of(shelf("bert")), texts(2))
    with pytest.raises(Refused):
        save_adapted(source_of(shelf("bert", seed=5)), artifact, tmp_path / "m", classes=CLASSES, task="single_label")


@pytest.mark.parametrize(("link", "outputs", "task"), [("identity", 1, "regression"), ("sigmoid", 3, "multi_label")])
@pytest.mark.parametrize("model", ["bert", "vit"])
def test_other_tasks_keep_their_link(
    shelf: Shelf, tmp_path: Path, model: str, link: str, outputs: int, task: str
) -> None:
    source = source_of(shelf(model))
    rows, head = rows_for(source, tmp_path), head_for(16, outputs, link)
    save_adapted(source, head, tmp_path / "m", classes=CLASSES if outputs == 3 else (), task=task)
    with sources.opened(source) as here:
        np.testing.assert_allclose(open_member(tmp_path / "m")(rows), head(here.features(rows)), **SAME)


def result_with(folder: Path, source: Source, artifacts: list[Head | Delta]) -> list[Path]:
    """Members of one result that share their base."""
    folder.mkdir()
    (folder / "headstart.json").write_text('{"format": 1}')
    (folder / "rows.json").write_text('{"format": 1, "train": ["aa"], "unlabelled": ["bb"], "test": ["cc"]}')
    save_base(source, folder / "bases" / "one")
    made = []
    for number, artifact in enumerate(artifacts):
        place = folder / "members" / f"{number:02d}"
        place.parent.mkdir(exist_ok=True)
        save_adapted(source, artifact, place, classes=CLASSES, task="single_label", base=folder / "bases" / "one")
        made.append(place)
    return made


def test_members_share_a_base_within_their_result_and_it_can_move(shelf: Shelf, tmp_path: Path) -> None:
    source, rows = source_of(shelf("bert")), texts(4)
    artifact, expected = low_rank(source, rows)
    head = head_for(16)
    result_with(tmp_path / "result", source, [head, artifact])
    assert len(list((tmp_path / "result").rglob("model.safetensors"))) == 1
    moved = (tmp_path / "result").rename(tmp_path / "elsewhere")
    np.testing.assert_allclose(open_member(moved / "members" / "01")(rows), expected, **SAME)
    with sources.opened(source) as here:
        np.testing.assert_allclose(open_member(moved / "members" / "00")(rows), head(here.features(rows)), **SAME)


def test_a_saved_result_is_a_source_with_features_and_predictions(shelf: Shelf, tmp_path: Path) -> None:
    source, rows = source_of(shelf("bert")), texts(4)
    artifact, expected = low_rank(source, rows)
    result_with(tmp_path / "result", source, [artifact])
    found, failed = sources.scan(tmp_path)
    assert not failed
    (one,) = found
    assert (one.kind, one.name, one.base) == ("result", "result/00", source.weights)
    assert one.facts["labels"] == list(CLASSES)
    assert one.trained_on == {"aa", "bb"}
    assert one.weights != source.weights
    with sources.opened(one) as here:
        np.testing.assert_allclose(here.predictions(rows), expected, **SAME)
        np.testing.assert_allclose(artifact.head(here.features(rows)), expected, **SAME)


def test_a_head_on_a_source_is_another_source_so_what_it_has_seen_stays_with_it(shelf: Shelf, tmp_path: Path) -> None:
    source = source_of(shelf("vit"))
    (place,) = result_with(tmp_path / "result", source, [head_for(16)])
    one = source_of(place)
    assert (one.base, one.lineage) == (None, (source.identity,))
    assert len({one.weights, source.weights, one.identity, source.identity}) == 4


def test_a_result_without_an_encoder_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "result").mkdir()
    (tmp_path / "result" / "headstart.json").write_text('{"format": 1}')
    found, failed = sources.scan(tmp_path)
    assert not found
    assert isinstance(failed[0][1], Refused)


def test_licence_and_lineage_are_carried_over_and_no_private_path_is(shelf: Shelf, tmp_path: Path) -> None:
    folder = tmp_path / "private-home" / "mine"
    shutil.copytree(shelf("bert"), folder)
    (folder / "README.md").write_text("---\nlicense: cc-by-4.0\nbase_model: org/base\n---\n")
    save_adapted(source_of(folder), head_for(16), tmp_path / "m", classes=CLASSES, task="single_label")
    again = source_of(tmp_path / "m")
    assert again.licence == "cc-by-4.0"
    assert again.lineage == ("org/base", source_of(folder).identity)
    assert "private-home" not in (tmp_path / "m" / "member.json").read_text()


def test_weights_are_linked_where_the_disk_can(shelf: Shelf, tmp_path: Path) -> None:
    source = source_of(shelf("bert"))
    save_adapted(source, head_for(16), tmp_path / "m", classes=CLASSES, task="single_label")
    assert os.path.samefile(tmp_path / "m" / "model.safetensors", shelf("bert") / "model.safetensors")


@pytest.mark.parametrize("encoder", ["../../..", "/etc", "../outside"])
def test_a_member_that_leads_out_of_its_result_is_unreadable(shelf: Shelf, tmp_path: Path, encoder: str) -> None:
    save_adapted(source_of(shelf("bert")), head_for(16), tmp_path / "m", classes=CLASSES, task="single_label")
    shutil.copytree(shelf("bert"), tmp_path / "outside")
    said = json.loads((tmp_path / "m" / "member.json").read_text())
    (tmp_path / "m" / "member.json").write_text(json.dumps(said | {"encoder": encoder}))
    with pytest.raises(Unreadable):
        open_member(tmp_path / "m")


@pytest.mark.parametrize(
    "break_it",
    [
        lambda m: (m / "head.safetensors").unlink(),
        lambda m: (m / "head.safetensors").write_bytes(b"x"),
        lambda m: (m / "model.safetensors").unlink(),
        lambda m: (m / "member.json").write_text("{"),
        lambda m: (m / "member.json").write_text('{"format": 2}'),
        lambda m: (m / "member.json").write_text('{"format": 1, "link": "evil"}'),
    ],
)
def test_a_damaged_member_is_a_problem(shelf: Shelf, tmp_path: Path, break_it: Callable[[Path], object]) -> None:
    save_adapted(source_of(shelf("bert")), head_for(16), tmp_path / "m", classes=CLASSES, task="single_label")
    break_it(tmp_path / "m")
    with pytest.raises(Problem):
        open_member(tmp_path / "m")(texts(2))


def test_a_member_predicts_after_its_source_is_gone_in_a_process_without_network(tmp_path: Path) -> None:
    home = save_model(tmp_path / "home" / "bert", "bert")
    source, rows = source_of(home), texts(3)
    artifact, expected = low_rank(source, rows)
    save_adapted(source, artifact, tmp_path / "member", classes=CLASSES, task="single_label")
    shutil.rmtree(tmp_path / "home")
    code = (
        "import json, socket, sys\n"
        "def blocked(*a, **k): raise SystemExit('network')\n"
        "socket.socket.connect = socket.getaddrinfo = blocked\n"
        "import pyarrow as pa; from headstart.io.members import open_member\n"
        f"rows = pa.table({{'text': {rows['text'].to_pylist()!r}}})\n"
        f"print(json.dumps(open_member({str(tmp_path / 'member')!r})(rows).tolist()))"
    )
    paths = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.array(json.loads(done.stdout)), expected, **SAME)
