"""Heads: which tensors of a classifier are its own, and where models lie that keep theirs while their bodies merge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from headstart.core import Refused

if TYPE_CHECKING:
    from headstart.io.model_folders import ModelFolder
    from headstart.numerics.made import Made

LAST = frozenset({  # modules that give one output a label
    "classifier", "score", "head", "cls_classifier", "distillation_classifier", "classification_head", "logits_proj",
    "sequence_summary",
})  # fmt: skip
BEFORE = frozenset({"pre_classifier"})  # dense layers before them that are modules of their own


def is_label_wise(folder: ModelFolder, name: str) -> bool:
    """Whether the tensor's rows are one a label."""
    labels, shape = folder.labels, folder.tensors[name].shape
    return labels is not None and bool(shape) and shape[0] == len(labels) and bool(LAST & set(name.split(".")))


def numbered(labels: Sequence[str]) -> bool:
    """Whether labels are numbers alone, which do not say what they mean.

    >>> numbered(["0", "1"]), numbered(["LABEL_0", "LABEL_1"]), numbered(["calm", "wild"])
    (True, True, False)
    """
    return all(label.startswith("LABEL_") or label.isdecimal() for label in labels)


def head_of(folder: ModelFolder) -> frozenset[str]:
    """The tensors that are no part of the body: the layers that give labels, and dense ones between it and them.

    Raises `Refused` for a model that gives no labels.
    """
    last = {name for name in folder.tensors if is_label_wise(folder, name)}
    if not last:
        raise Refused(
            f"`{folder.name}` has no head that gives labels",
            where="--heads separate",
            fix="name classifiers only, or merge whole models with another --heads",
        )
    body = _body(folder)
    if body is None:
        return frozenset(last | {n for n in folder.tensors if n.split(".")[0] in LAST | BEFORE})
    return frozenset(last | {n for n in folder.tensors if not n.startswith((f"{body}.", *_beside(folder)))})


def _body(folder: ModelFolder) -> str | None:
    """The first part of the names of the body, where it is one module with parts, as `bert` of `bert.embeddings…` and
    `bert.encoder…`; None for a model whose parts lie side by side."""
    sizes: Counter[str] = Counter()
    for name, entry in folder.tensors.items():
        first, dot, _ = name.partition(".")
        if dot and "/" not in name and first not in LAST | BEFORE:
            sizes[first] += entry.end - entry.start
    if not sizes:
        return None
    first = sizes.most_common(1)[0][0]
    parts = {n.split(".")[1] for n in folder.tensors if n.startswith(f"{first}.")}
    return first if sum(not p.isdigit() for p in parts) > 1 else None


def _beside(folder: ModelFolder) -> tuple[str, ...]:
    """Folders of parts that every model has beside its main one."""
    return tuple({n.rpartition("/")[0] + "/" for n in folder.tensors if "/" in n})


def kept(model: ModelFolder, reader: int, head: Collection[str], place: str, dtype: str | None) -> list[Made]:
    """A head as it is, or rounded to the type of the result; its tensors are named after the folder of their model."""
    from headstart.combination.weighting.linear import Linear
    from headstart.io.safetensors_files import WIDTHS
    from headstart.numerics.made import FLOATS, Made, Part

    out = []
    for name in sorted(head):
        entry = model.tensors[name]
        part, new = Part(reader, name, entry.dtype), f"{place}/{model.main}{name}"
        if dtype in (None, entry.dtype) or entry.dtype not in FLOATS:
            out.append(Made(new, entry.dtype, WIDTHS[entry.dtype], entry.shape, part))
        else:
            assert dtype is not None  # else it is as it is
            out.append(Made(new, dtype, WIDTHS[dtype], entry.shape, None, (part,), "weighting", Linear()))
    return out


def places_of(names: Sequence[str], taken: Collection[str]) -> list[str]:
    """A folder below the result for each model: named like it, in one part, and like no other and nothing taken."""
    seen = {t.casefold() for t in taken}
    out = []
    for given in names:
        plain = given.replace("/", "-").strip(" .") or "model"
        name, number = plain, 2
        while name.casefold() in seen:
            name, number = f"{plain}-{number}", number + 1
        seen.add(name.casefold())
        out.append(name)
    return out
