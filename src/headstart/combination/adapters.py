"""Adapters as changes: merged exactly, turned into deltas, and made from them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.core import Receipt, Refused, Unfit

from . import kept_whole
from .heads import places_of
from .kept_whole import JOIN, Heads
from .writing import RECEIPT

if TYPE_CHECKING:
    import torch

    from headstart.combination.deltas import Written
    from headstart.io.layer_kinds import LayerKind, Layers
    from headstart.io.model_folders import ModelFolder
    from headstart.io.peft_folders import Adapter
    from headstart.numerics.delta import Delta, Form

HEADS = ("same", "average", "separate")


def merge_adapters(
    adapters: Sequence[str | Path], *, out: str | Path, weights: Sequence[float] = (), rank: int | None = None,
    heads: Heads = "same", base: str | Path | None = None, overwrite: bool = False, cache: Path | None = None,
) -> Path:  # fmt: skip
    """Σ weight · change of several LoRA adapters of one base, as an adapter: exact, its rank the sum of theirs.

    weights: one an adapter; none are 1 / their number. rank: the nearest adapter of a smaller rank instead. heads: of
    modules that are kept whole, such as a classifier; `same` refuses those that differ, `average` takes their weighted
    mean, and `separate` makes a folder for each adapter, with its own head and the sum of all changes. base: the model
    that they were trained on. With it the changes of such modules are weighed as all others, where it has them; else a
    module counts in full where one adapter alone keeps it, and a warning in the receipt names it.

    One adapter at weight 1 stays what it is. DoRA's magnitudes depend on the base and on the other adapters, so several
    adapters with them are refused. Raises `Refused` then, and `Unfit` for other numbers of weights than adapters.
    `merge.json` tells what it was made of.
    """
    from headstart.io import atomic, model_folders, peft_folders
    from headstart.numerics.portions import each

    if heads not in HEADS:
        raise Unfit(f"heads is `{heads}`", where="--heads", fix=f"use one of: {', '.join(HEADS)}; {JOIN}")
    read = [peft_folders.read(a) for a in adapters]
    if not read:
        raise Unfit("there is nothing to merge", where="adapter merge", fix="name one adapter or more")
    place = Path(out).expanduser().absolute()
    atomic.refuse_occupied(place, overwrite=overwrite)
    sources = [*adapters, base] if base is not None else adapters
    atomic.refuse_own_source(place, [Path(one).expanduser() for one in sources])
    shares = each(tuple(weights), len(read), "weights", 1 / len(read)).tolist()
    bodies = [_without_head(one) for one in read] if heads == "separate" else read
    root = model_folders.read(base) if base is not None else None
    before = _before(bodies, root)
    if len(read) == 1 and shares[0] == 1 and rank is None:
        changes: dict[str, Form] = dict(bodies[0].changes)
    else:
        names = dict.fromkeys(n for one in bodies for n in one.changes)
        changes = {name: _sum(name, bodies, shares, heads, rank, before) for name in names}
    kinds = {n: k for one in read for n, k in one.kinds.items()}
    saved = tuple(dict.fromkeys(m for one in read for m in one.saved))
    made = {"": replace(read[0], changes=changes, kinds=kinds, saved=saved)}
    if heads == "separate":
        places = places_of([one.name for one in read], (RECEIPT,))
        made = {
            place: replace(one, changes={**changes, **one.own}, kinds=kinds)
            for place, one in zip(places, read, strict=True)
        }
    warnings = kept_whole.unweighed(bodies, shares, before, root.name if root else None)
    receipt = _receipt(adapters, read, made, {"weights": shares, "rank": rank, "heads": heads}, root, warnings, cache)
    peft_folders.write_all(made, place, {RECEIPT: receipt.json() + "\n"}, overwrite=overwrite)
    return place


def _without_head(adapter: Adapter) -> Adapter:
    own = adapter.own
    if not own:
        raise Refused(
            f"`{adapter.name}` keeps no module whole, and so has no head of its own",
            where="--heads separate",
            fix="merge it without --heads",
        )
    return replace(adapter, changes={n: c for n, c in adapter.changes.items() if n not in own})


def _before(adapters: Sequence[Adapter], root: ModelFolder | None) -> kept_whole.Before:
    """What the base has in the place of a tensor, by the name that it has in the adapters."""
    from headstart.io import deltas

    if root is None:
        return lambda _: None
    folder = root
    changes = {n: c for a in adapters for n, c in a.changes.items()}
    kinds = {n: k for a in adapters for n, k in a.kinds.items()}
    places = _places(replace(adapters[0], changes=changes, kinds=kinds), folder)
    return lambda name: deltas.tensor(folder, places[name]) if name in places else None


def _ranks(adapter: Adapter) -> list[int]:
    """All ranks of an adapter, rising."""
    from headstart.numerics.delta import LowRank

    return sorted({c.left.shape[1] for c in adapter.changes.values() if isinstance(c, LowRank)})


def _receipt(
    where: Sequence[str | Path], adapters: Sequence[Adapter], made: Mapping[str, Adapter], settings: dict[str, Any],
    root: ModelFolder | None, warnings: tuple[str, ...], cache: Path | None,
) -> Receipt:  # fmt: skip
    from headstart import __version__
    from headstart.io import deltas, fingerprints, peft_folders

    addresses = [Path(a).expanduser().absolute() for a in where]
    told = [
        {
            "adapter": str(address), "name": one.name, "base": one.config.get("base_model_name_or_path"),
            "weights": fingerprints.of_file(address / peft_folders.WEIGHTS, cache=cache), "saved": list(one.saved),
            "ranks": _ranks(one),
        }
        for address, one in zip(addresses, adapters, strict=True)
    ]  # fmt: skip
    facts: dict[str, Any] = {
        "adapters": told, "folders": [f or "." for f in made], "ranks": _ranks(next(iter(made.values()))),
    }  # fmt: skip
    if root is not None:
        facts["base"] = {"model": str(root.where), "weights": deltas.fingerprint(root, cache=cache)}
    return Receipt(
        step="adapter merge", method="sum", settings=settings, inputs=tuple(str(a) for a in addresses),
        versions={"headstart": __version__}, warnings=warnings, facts=facts,
    )  # fmt: skip


def _sum(
    name: str, adapters: Sequence[Adapter], shares: Sequence[float], heads: Heads, rank: int | None,
    before: kept_whole.Before,
) -> Form:  # fmt: skip
    from headstart.numerics.delta import LowRank, Whole, added, scaled, truncated

    having = [(a.changes[name], w) for a, w in zip(adapters, shares, strict=True) if name in a.changes]
    if any(isinstance(c, Whole) for c, _ in having):
        return kept_whole.merged(name, having, heads, before)
    bound = [c for c, _ in having if isinstance(c, LowRank) and c.magnitude is not None]
    if bound:
        raise Refused(
            f"the DoRA magnitudes of `{name}` depend on the base, and cannot be scaled or added alone",
            where="adapter merge",
            fix="turn each into a delta with its base: headstart adapter to-delta, and merge those",
        )
    found = added([scaled(c, w) for c, w in having])
    return truncated(found, rank) if rank is not None and isinstance(found, LowRank) else found


def to_delta(adapter: str | Path, base: str | Path, *, out: str | Path, cache: Path | None = None) -> Written:
    """The change that an adapter makes to its base, as a delta; low-rank where it is, DoRA as numbers."""
    from headstart import __version__
    from headstart.combination.deltas import Written
    from headstart.io import deltas, model_folders, peft_folders
    from headstart.numerics.delta import Delta, Dense, LowRank, Whole, applied, shape_of

    held, root = peft_folders.read(adapter), model_folders.read(base)
    _check_tied(held, root)
    places = _places(held, root)
    changes: dict[str, Form] = {}
    for name, change in held.changes.items():
        place = places.get(name)
        if isinstance(change, LowRank) and tuple(shape_of(change)) != root.tensors[str(place)].shape:
            raise _other_shape(name, change, held, root)
        if isinstance(change, LowRank) and change.magnitude is not None:
            before = deltas.tensor(root, str(place))
            changes[str(place)] = Dense(applied(change, before.float()) - before.float())
        elif place is not None and not isinstance(change, Whole):
            changes[place] = change
        elif isinstance(change, Whole):
            changes[place or name] = change
        else:
            changes[name] = Whole(change.values) if isinstance(change, Dense) else change  # a bias that the base lacks
    facts = {
        "method": "adapter", "adapter": held.name, "base": root.name, "headstart": __version__, "config":
        dict(root.config), "main": root.main,
        "tensors": {**{n: n for n in root.tensors}, **{n: None for n in changes if n not in root.tensors}},
    }  # fmt: skip
    made = Delta(deltas.fingerprint(root, cache=cache), changes, (), facts)
    where = Path(out).expanduser().absolute()
    return Written(made, where, deltas.write(made, where))


def adapted(root: ModelFolder, adapter: str | Path) -> ModelFolder:
    """The model with the adapter on it, as something to merge: its weights are changed as they are read.

    Raises `Refused` for an adapter that was made for another model.
    """
    from headstart.io import peft_folders
    from headstart.numerics.delta import Whole, shape_of

    where = Path(adapter).expanduser().absolute()
    held = peft_folders.read(where)
    _check_tied(held, root)
    places, stored = _places(held, root), peft_folders.whole_tensors(where)
    tensors = dict(root.tensors)
    changes: dict[str, Form] = {}
    for name, change in held.changes.items():
        place = places.get(name, name)
        if isinstance(change, Whole) and place not in tensors and _is_copy(place, root):
            continue  # `_check_tied` has seen that both are the same
        if place not in tensors or tensors[place].shape != tuple(shape_of(change)):
            raise _other_shape(name, change, held, root)
        if isinstance(change, Whole):
            tensors[place] = replace(stored[name], name=place)
        else:
            changes[place] = change
    return replace(root, name=f"{root.name}+{held.name}", tensors=tensors, changes=changes, adapter=where)


def _other_shape(name: str, change: Form, held: Adapter, root: ModelFolder) -> Refused:
    from headstart.numerics.delta import shape_of

    return Refused(
        f"the adapter changes `{name}` in shape {list(shape_of(change))}, which the model has not",
        where=f"adapter `{held.name}` on `{root.name}`",
        fix="name the model that the adapter was made for, with the head that it was made with",
    )


def from_delta(delta: str | Path, base: str | Path, *, out: str | Path, rank: int = 16, overwrite: bool = False,
               cache: Path | None = None) -> dict[str, Any]:  # fmt: skip
    """An adapter from a delta: matrices by their nearest low rank, all else as modules that are kept whole.

    Embeddings are matrices, too, where peft takes them and the rank is less than both sides, and so are convolutions
    without groups or gaps, with all places of their kernels side by side. Modules are called as in the fine-tune, which
    may wrap its base. Gives how much of the change was kept: 1 - (what was lost / the change) in squares, over the
    matrices; why matrices are kept whole, by module; and modules that transformers' class has not, which peft does not
    find. Where transformers renames what it loads, as of ViT, names are those that it gives.
    """
    import math

    from headstart.combination.deltas import names_in_base
    from headstart.io import atomic, deltas, model_folders, peft_folders
    from headstart.io.peft_folders import Adapter, Kind
    from headstart.numerics.delta import LowRank, Whole, applied, dense, low_rank, shape_of, truncated

    held, root = deltas.read(delta), model_folders.read(base)
    place = Path(out).expanduser().absolute()
    atomic.refuse_occupied(place, overwrite=overwrite)
    atomic.refuse_own_source(place, [Path(delta).expanduser(), root.where])
    deltas.check_base(held, root, cache=cache)
    theirs = names_in_base(held, root)
    layers = _layers(held, root)
    changes: dict[str, Form] = {}
    kinds: dict[str, Kind] = {}
    saved: list[str] = []
    why: dict[str, str] = {}
    kept = whole = 0.0
    # peft keeps a module whole with all that lies in it
    owners = {m for n in held.changes for m, _, last in [n.rpartition(".")] if last not in ("weight", "bias")}
    for name, change in held.changes.items():
        module, _, last = name.rpartition(".")
        source = theirs.get(name)
        before = deltas.tensor(root, source) if source is not None else None
        axes = len(shape_of(change))
        matrix = last == "weight" and axes > 1
        kind = _kind_of(module, layers, axes)
        reason = _why_whole(name, change, before, kind, layers, rank, owners) if matrix else None
        if matrix and reason is None and before is not None and kind is not None:
            # `diff` with exact keeps a tensor whole where base + change would round
            numbers = change.values.float() - before.float() if isinstance(change, Whole) else dense(change, before)
            plain = isinstance(change, LowRank) and change.magnitude is None
            low = truncated(change, rank) if isinstance(change, LowRank) and plain else low_rank(numbers, rank)
            changes[name], kinds[name] = low, kind
            total = float(numbers.double().square().sum())
            kept += total - float((numbers - dense(low)).double().square().sum())
            whole += total
        elif last == "bias":
            changes[name] = Whole(applied(change, before))
        else:
            saved.append(module)
            why |= {module: reason} if reason is not None else {}
    if not kinds:
        raise Refused(
            "it changes no matrix that an adapter can hold by low rank, and peft reads none without one",
            where=f"delta `{delta}`",
            fix="keep it as a delta, and apply it: headstart delta apply",
        )
    tied = {} if layers is None else {c: n for c, n in layers.tied.items() if c not in theirs and n in theirs}
    # a module that is kept whole is tied to nothing in peft: what it was tied to is kept beside it
    saved += [c.rpartition(".")[0] for c, n in tied.items() if n.rpartition(".")[0] in saved]
    saved = [m for m in dict.fromkeys(saved) if not any(m.startswith(f"{o}.") for o in saved)]
    for module in saved:
        for tensor in _of_module(module, {**theirs, **tied}):
            name = tied.get(tensor, tensor)
            changes[tensor] = Whole(_after(name, theirs[name], held, root, applied))
    config = {
        "base_model_name_or_path": root.name, "task_type": None, "fan_in_fan_out": "transposed" in kinds.values()
    }  # fmt: skip
    modules = dict.fromkeys(n.rpartition(".")[0] for n in changes)
    lost = [m for m in modules if layers is not None and layers.called(m) is None]
    if layers is not None:
        changes = {layers.loaded.get(n, n): change for n, change in changes.items()}
        kinds = {layers.loaded.get(n, n): kind for n, kind in kinds.items()}
        saved, why = [layers.as_loaded(m) for m in saved], {layers.as_loaded(m): r for m, r in why.items()}
    made = Adapter(root.name, changes, kinds, tuple(saved), config)
    peft_folders.write(made, place, overwrite=overwrite)
    return {
        "out": str(place), "rank": rank, "matrices": len(kinds), "saved": saved, "why": why,
        "unknown": lost, "kept": kept / whole if whole else 1.0, "lost": math.sqrt(max(0.0, whole - kept)),
    }  # fmt: skip


def _layers(delta: Delta, root: ModelFolder) -> Layers | None:
    """The layers of the fine-tune."""
    from headstart.io.layer_kinds import layers_of
    from headstart.numerics.delta import shape_of

    told = delta.facts.get("config")
    shapes = {n: (e.dtype, e.shape) for n, e in root.tensors.items()}
    shapes |= {n: ("", tuple(shape_of(c))) for n, c in delta.changes.items()}
    return layers_of(told if isinstance(told, dict) else root.config, shapes, f"delta of `{root.name}`")


def _kind_of(module: str, layers: Layers | None, axes: int) -> LayerKind | None:
    """By its name where transformers does not know it: what is called an embedding may be of several kinds."""
    known = layers.called(module) if layers is not None else None
    if layers is None or known is None:
        return None if "embed" in module or axes != 2 else "linear"
    return layers.kinds[known]


def _why_whole(
    name: str, change: Form, before: torch.Tensor | None, kind: LayerKind | None, layers: Layers | None, rank: int,
    owners: Collection[str],
) -> str | None:  # fmt: skip
    """Why a matrix is kept whole, or None where it is one of low rank. owners: modules that are kept whole anyway."""
    from headstart.numerics.delta import shape_of

    shape, module = tuple(shape_of(change)), name.rpartition(".")[0]
    outer = next((o for o in owners if module == o or module.startswith(f"{o}.")), None)
    if outer is not None:
        return f"it lies in `{outer}`, which is kept whole"
    if before is None:
        return "the base has none"
    if shape != tuple(before.shape):
        return f"it has {' × '.join(map(str, shape))} numbers, and the base {' × '.join(map(str, before.shape))}"
    known = layers.called(module) if layers is not None else None
    if layers is None or known is None:
        return None if kind is not None else "transformers does not say what kind of layer it is"
    if kind is None and len(shape) > 2:
        return "low rank is for matrices, and for convolutions without groups or gaps"
    if kind is None:
        return "peft has no LoRA for its kind of layer"
    if kind == "linear" and "transposed" in layers.kinds.values():
        return "others of the model store their matrices transposed, and an adapter says so of all or of none"
    if kind != "embedding":
        return None
    tied = [c for c, n in layers.tied.items() if f"{known}.weight" in (c, n)]
    if tied:
        return f"it is one with `{tied[0].rpartition('.')[0]}`, which a LoRA in peft is not"
    if known not in layers.inputs:
        return "it embeds no words, and models may take its numbers past a LoRA"
    if rank >= min(shape):
        return f"rank {rank} is not less than its {shape[0]} × {shape[1]} numbers"
    return None


def _of_module(module: str, theirs: Mapping[str, str | None]) -> list[str]:
    """All tensors of a module that is kept whole, and of those in it, changed or not."""
    return [n for n in theirs if n.startswith(f"{module}.")]


def _after(name: str, source: str | None, delta: Any, root: ModelFolder, applied: Any) -> torch.Tensor:
    from headstart.io import deltas

    before = deltas.tensor(root, source) if source is not None else None
    change = delta.changes.get(name)
    found: torch.Tensor | None = before if change is None else applied(change, before)
    assert found is not None  # it is in the delta or in the base
    return found


def _places(adapter: Adapter, root: ModelFolder) -> dict[str, str]:
    """Name in the adapter -> name in the base, or the name that transformers loads it under; a first part of the names
    may be there or not.
    """
    wanted = [n for n in adapter.changes if n in adapter.kinds]
    best = _fitting(adapter, wanted, {n: n for n in root.tensors})
    if any(n not in best for n in adapter.changes):
        layers = _layers_of(root)
        loaded = {new: n for n, new in layers.loaded.items()} if layers is not None else {}
        best = _fitting(adapter, wanted, {n: n for n in root.tensors} | loaded)
    lost = [n for n in wanted if n not in best]
    if lost:
        raise Refused(
            f"the base has no tensor `{lost[0]}`",
            where=f"adapter `{adapter.name}` on `{root.name}`",
            fix="name the model that the adapter was made for",
        )
    return best


def _layers_of(root: ModelFolder) -> Layers | None:
    from headstart.io.layer_kinds import layers_of

    return layers_of(root.config, {n: (e.dtype, e.shape) for n, e in root.tensors.items()}, f"model `{root.where}`")


def _check_tied(adapter: Adapter, root: ModelFolder) -> None:
    """Raises `Refused` for a change of one of two tensors that are one in the base: peft has the other stay."""
    import torch

    from headstart.io.tensor_names import of_words
    from headstart.numerics.delta import Whole

    weights = {n: c for n, c in adapter.changes.items() if n.endswith(".weight")}
    if not any(isinstance(c, Whole) or of_words(n) or adapter.kinds.get(n) == "embedding" for n, c in weights.items()):
        return
    layers = _layers_of(root)
    if layers is None:
        return
    changed = {f"{layers.called(n.removesuffix('.weight'))}.weight": c for n, c in weights.items()}
    for copy, name in layers.tied.items():
        one, other = changed.get(copy), changed.get(name)
        same = isinstance(one, Whole) and isinstance(other, Whole) and torch.equal(one.values, other.values)
        if (one is not None or other is not None) and not same:
            first, second = (name, copy) if one is None else (copy, name)
            raise Refused(
                f"the adapter changes `{first}` alone, which is one with `{second}` in the base",
                where=f"adapter `{adapter.name}` on `{root.name}`",
                fix="merge it into its base with peft, which changes both, and take the difference with "
                "`headstart delta diff`: the result is then another than the model that was trained",
            )


def _is_copy(name: str, root: ModelFolder) -> bool:
    """Whether it is one with another tensor, and so is not stored."""
    layers = _layers_of(root)
    return layers is not None and f"{layers.called(name.removesuffix('.weight'))}.weight" in layers.tied


def _fitting(adapter: Adapter, wanted: Sequence[str], known: Mapping[str, str]) -> dict[str, str]:
    """With the first part by which most of those that are wanted are known."""
    shifts = ["", *(f"{f}." for f in sorted({n.split(".")[0] for n in known if "." in n}))]
    cuts = ["", *sorted({f"{n.split('.')[0]}." for n in wanted})]
    best: dict[str, str] = {}
    for cut in cuts:
        for put in shifts:
            moved = {n: put + n.removeprefix(cut) for n in adapter.changes}
            found = {n: known[new] for n, new in moved.items() if new in known}
            if sum(n in found for n in wanted) > sum(n in best for n in wanted):
                best = found
    return best
