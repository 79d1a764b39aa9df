"""Adapted sources on disk, each in a folder that needs nothing outside it, or outside its result.

A head on an untouched source brings the source along; a retrained encoder is written whole; an adapter lies beside its
base in peft's form. Where a stock class of transformers computes the same logits, the folder is written as that class,
which was then loaded and compared; other text encoders become a sentence-transformers folder, other image encoders a
plain one. The head is always in `head.safetensors` too, and `open_member` reads that.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from headstart.core import Refused, Source, Task, Unreadable
from headstart.numerics.artifacts import Delta, Head, Model

from . import adapters, recipes
from .encoders import Loaded, features, load, quiet
from .image_encoder import ImageEncoder
from .member_files import ADAPTER, FORMAT, HEAD, MANIFEST, Member, member_of
from .modules import DENSE
from .recipes import LINKS, Recipe
from .safe_files import inside, read_any_json, write_json
from .safetensors_files import weight_files
from .sources import recipe_of

Array = np.ndarray[Any, Any]
CLOSE = 1e-4  # largest difference between our logits and those of the stock class
BASE = "base"
SKIPPED = (".safetensors", ".bin", ".pt", ".pth", ".pkl", ".ckpt", ".h5", ".msgpack", ".onnx", ".ot", ".py", ".md")


def save_adapted(
    source: Source,
    artifact: Head | Model | Delta,
    folder: Path,
    *,
    classes: Sequence[str],
    task: str | Task,
    base: Path | None = None,
) -> dict[str, Any]:
    """Writes one adapted source as a member folder, and returns what its `member.json` says.

    `loads` in it names what else opens the folder: `transformers:CLASS`, `sentence-transformers`, `peft` (the base
    under `base/`, the adapter under `adapter/`) or `transformers`. base: a folder that `save_base` wrote within the
    same result, referred to instead of stored again; for heads and adapters only.
    """
    recipe, member = recipe_of(source)
    if isinstance(artifact, Delta) and artifact.base != source.weights:
        raise Refused(
            f"the adapter belongs to weights {artifact.base[:12]}, and these are {source.weights[:12]}",
            where=f"source `{source.name}`",
            fix="save it with the source that it was trained on",
        )
    folder.mkdir(parents=True, exist_ok=True)
    task_type = task.type if isinstance(task, Task) else task
    encoder_at = folder
    if isinstance(artifact, Model):
        loads = _write_model(recipe, member, artifact, folder, classes)
    elif base is not None:
        encoder_at, loads = base, "peft" if isinstance(artifact, Delta) else "headstart"
    elif isinstance(artifact, Delta):
        encoder_at, loads = folder / BASE, "peft"
        save_base(source, encoder_at)
    else:
        loads = _write_head(source, recipe, member, artifact, folder, classes)
    if isinstance(artifact, Delta):
        adapters.write(artifact, folder / ADAPTER, base=source.name)
    save_file(
        {"weight": np.ascontiguousarray(artifact_head(artifact).weight, dtype=np.float32),
         "bias": np.ascontiguousarray(artifact_head(artifact).bias, dtype=np.float32)},
        folder / HEAD,
    )  # fmt: skip
    said = {
        "format": FORMAT,
        "kind": {Head: "head", Model: "model", Delta: "delta"}[type(artifact)],
        "encoder": Path(os.path.relpath(encoder_at.resolve(), folder.resolve())).as_posix(),
        "adapter": isinstance(artifact, Delta),
        "base": None if isinstance(artifact, Head) else source.weights,
        "classes": list(classes),
        "task": task_type,
        "link": artifact_head(artifact).link,
        "loads": loads,
        "source": _history(source),
    }
    write_json(said, folder / MANIFEST)
    return said


def artifact_head(artifact: Head | Model | Delta) -> Head:
    """The head of any artifact that sits on a source."""
    return artifact if isinstance(artifact, Head) else artifact.head


def save_base(source: Source, folder: Path) -> int:
    """A source's encoder as a plain folder of its own; bytes that are new on the disk (linked files cost none).

    A text checkpoint becomes a sentence-transformers folder with the pooling that it is used with, so that other
    libraries compute the same features.
    """
    recipe, member = recipe_of(source)
    if member is not None and member.adapter is not None:
        return _write_encoder(load(recipe, member), recipe, folder)
    written = _copy(recipe, folder)
    if recipe.modality == "text" and recipe.kind == "checkpoint":
        _write_pooling(recipe, folder)
    return written


def open_member(folder: str | Path) -> Opened:
    """A saved member, ready to predict: no network, no pickle, nothing from outside its result."""
    return Opened(Path(folder))


class Opened:
    """Calls like a function: (rows, outputs) float64 from rows of inputs. member: what its manifest says."""

    def __init__(self, folder: Path) -> None:
        self.member = member_of(folder)
        self._recipe = recipes.read(self.member.encoder)
        self._encoder: Loaded | None = None  # read at the first call

    def __call__(
        self, inputs: pa.Table, *, threads: int | None = None, progress: Callable[[int, int], None] | None = None
    ) -> Array:
        if self._encoder is None:
            self._encoder = load(self._recipe, self.member)
        return predicted(self.member, features(self._encoder, inputs, threads=threads, progress=progress))


def predicted(member: Member, features: Array) -> Array:
    """What the member's head makes of features: probabilities, or values for regression."""
    try:
        tensors = load_file(inside(member.folder, HEAD))
        head = Head(tensors["weight"], tensors["bias"], member.link)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise Unreadable(
            f"`{HEAD}` is missing or damaged", where=f"member `{member.folder}`", fix="copy the result folder again"
        ) from error
    if (
        head.weight.shape != (max(len(member.classes), 1), features.shape[1])
        or head.bias.shape != head.weight.shape[:1]
    ):
        raise Unreadable(
            f"the head has the shape {head.weight.shape}, and its encoder gives {features.shape[1]} features",
            where=f"member `{member.folder}`",
            fix="copy the whole result folder again",
        )
    return head(features)


def _history(source: Source) -> dict[str, Any]:
    return {
        "name": source.name,
        "origin": source.origin if source.origin.startswith("hub:") else source.name,
        "licence": source.licence,
        "identity": source.identity,
        "weights": source.weights,
        "lineage": [*source.lineage, source.identity],
    }


def _write_head(
    source: Source,
    recipe: Recipe,
    member: Member | None,
    head: Head,
    folder: Path,
    classes: Sequence[str],
) -> str:
    if recipe.modality == "image":
        encoder = load(recipe, member)
        named = _write_stock(encoder, recipe, head, folder, classes)
        if named is not None:
            return named
    save_base(source, folder)
    return "sentence-transformers" if recipe.modality == "text" else "transformers"


def _write_model(recipe: Recipe, member: Member | None, model: Model, folder: Path, classes: Sequence[str]) -> str:
    encoder = load(recipe, member)
    try:
        encoder.module.load_state_dict(dict(model.tensors), strict=True)
    except RuntimeError as error:
        raise Refused(
            f"the trained tensors do not fit the encoder: {' '.join(str(error).split())[:120]}",
            where=f"source `{recipe.where}`",
            fix="save it with the source that it was trained from",
        ) from error
    if recipe.modality == "image":
        named = _write_stock(encoder, recipe, model.head, folder, classes)
        if named is not None:
            return named
    _write_encoder(encoder, recipe, folder)
    return "sentence-transformers" if recipe.modality == "text" else "transformers"


def _write_encoder(encoder: Loaded, recipe: Recipe, folder: Path) -> int:
    """The encoder as it stands in memory, with the files of its recipe around it."""
    _copy(recipe, folder, weights=False)
    place = folder / recipe.model.relative_to(recipe.where)
    dense = dict(encoder.module.named_children()).get(DENSE)
    own = {k: v for k, v in encoder.module.state_dict().items() if not k.startswith(f"{DENSE}.")}
    with quiet():
        encoder.module.save_pretrained(place, state_dict=own)  # type: ignore[operator]  # transformers' own method
    number = 0
    for step in recipe.after:
        if step.folder is None:
            continue
        assert isinstance(dense, torch.nn.ModuleList)  # put there by load_module, in the order of these steps
        tensors = {f"linear.{k}": v.detach().numpy() for k, v in dense[number][0].state_dict().items()}  # type: ignore[index]
        save_file(tensors, folder / step.folder.relative_to(recipe.where) / "model.safetensors")
        number += 1
    if recipe.modality == "text" and recipe.kind == "checkpoint":
        _write_pooling(recipe, folder)
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def _write_stock(encoder: Loaded, recipe: Recipe, head: Head, folder: Path, classes: Sequence[str]) -> str | None:
    """As transformers' own classifier, if that computes our logits; its name, or None when it does not."""
    from transformers import AutoModelForImageClassification

    assert isinstance(encoder, ImageEncoder)  # asked by the callers
    names = list(classes) or ["value"]
    config: Any = encoder.module.config
    config = type(config).from_dict(config.to_dict())
    config.id2label = dict(enumerate(names))
    config.label2id = {n: i for i, n in enumerate(names)}
    config.problem_type = {v: k for k, v in LINKS.items()}[head.link]
    with quiet(), torch.random.fork_rng():
        try:
            whole = AutoModelForImageClassification.from_config(config)
        except (ValueError, AttributeError, TypeError):  # no such class for this architecture
            return None
    inner = getattr(whole, recipe.prefix, None)
    last = [m for m in whole.modules() if isinstance(m, torch.nn.Linear)][-1:]
    if inner is None or not last or tuple(last[0].weight.shape) != head.weight.shape:
        return None
    with torch.no_grad():
        last[0].weight.copy_(torch.from_numpy(np.array(head.weight, dtype=np.float32)))
        last[0].bias.copy_(torch.from_numpy(np.array(head.bias, dtype=np.float32)))
    lost = inner.load_state_dict(encoder.module.state_dict(), strict=False)
    if lost.missing_keys or lost.unexpected_keys:
        return None
    trial = folder / "trial"
    with quiet():
        whole.save_pretrained(trial)
    again = AutoModelForImageClassification
    with quiet(), torch.inference_mode():
        loaded = again.from_pretrained(trial, local_files_only=True, use_safetensors=True, dtype=torch.float32).eval()
        pixels = _probe(encoder)
        encoder.module.eval()
        ours = encoder.forward_features(pixels).numpy() @ np.asarray(head.weight).T + np.asarray(head.bias)
        theirs = loaded(pixel_values=pixels.pixels).logits.numpy()
    same = np.allclose(ours, theirs, rtol=CLOSE, atol=CLOSE)
    if same:
        _copy(recipe, folder, weights=False, config=False)
        for path in sorted(trial.iterdir()):
            os.replace(path, folder / path.name)
    shutil.rmtree(trial)
    return f"transformers:{type(loaded).__name__}" if same else None


def _probe(encoder: ImageEncoder) -> Any:
    """Two images of noise through the model's own processor."""
    draw = np.random.default_rng(0)
    rows = [{"bytes": _png(draw.integers(0, 255, (32, 32, 3), dtype=np.uint8)), "path": None} for _ in range(2)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return encoder.collate(pa.table({"image": pa.array(rows, type=kind)}), [0, 1])


def _png(pixels: Array) -> bytes:
    from .images import encode

    return encode(pixels)


def _copy(recipe: Recipe, folder: Path, *, weights: bool = True, config: bool = True) -> int:
    """The files that make the recipe, in the same places; weights are linked where the disk can. Bytes that are new."""
    if weights:  # a missing or unsafe file is named before anything is written
        wanted = [(f, recipe.model) for f in weight_files(recipe.model, root=recipe.where)]
        wanted += [(f, s.folder) for s in recipe.after if s.folder for f in weight_files(s.folder, root=recipe.where)]
    else:
        wanted = []
    new = 0
    for file, _ in wanted:
        new += _link(file, folder / file.relative_to(recipe.where))
    named = read_any_json(recipe.where, "modules.json") if recipe.kind == "sentence_transformer" else []
    homes = {recipe.where, recipe.model, *(inside(recipe.where, str(m["path"])) for m in named)}
    for home in sorted(h for h in homes if h.is_dir()):
        for path in sorted(home.iterdir()):
            index = path.name.endswith(".safetensors.index.json")
            skipped = path.suffix.lower() in SKIPPED or path.name.startswith(".") or path.name in (MANIFEST, HEAD)
            if not path.is_file() or skipped or (index and not weights):
                continue
            if path.name == "config.json" and not config and home == recipe.model:
                continue
            if path.suffix in (".json", ".txt", ".model", ".codes") or path.name.upper().startswith("LICEN"):
                inside(home, path.name, root=recipe.where)
                place = folder / path.relative_to(recipe.where)
                place.parent.mkdir(parents=True, exist_ok=True)
                new += shutil.copyfile(path, place).stat().st_size
    return new


def _link(file: Path, place: Path) -> int:
    """A hard link where both lie on one disk, else a copy; bytes that are new."""
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file.resolve(), place)
    except OSError:
        shutil.copyfile(file, place)
        return place.stat().st_size
    return 0


def _write_pooling(recipe: Recipe, folder: Path) -> None:
    """What makes a checkpoint a sentence-transformers folder: its modules, with the pooling that it is used with."""
    pooling = folder / "1_Pooling"
    pooling.mkdir(exist_ok=True)
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    mode = recipe.pooling[0]
    flags = {"pooling_mode_cls_token": mode == "cls", "pooling_mode_mean_tokens": mode == "mean"}
    write_json({"word_embedding_dimension": recipe.width, "pooling_mode_max_tokens": False, **flags},
               pooling / "config.json")  # fmt: skip
    write_json(modules, folder / "modules.json")
    write_json({"max_seq_length": recipe.max_length, "do_lower_case": False}, folder / "sentence_bert_config.json")
