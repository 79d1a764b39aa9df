"""Deltas as files: taken from two models, applied and taken back, made smaller, compared, added, and cut into parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from headstart import __version__
from headstart.core import Refused, Unfit

if TYPE_CHECKING:
    import torch

    from headstart.io.model_folders import ModelFolder
    from headstart.io.safetensors_files import Entry
    from headstart.io.shards import Planned
    from headstart.numerics.delta import Delta, Form

COMPRESSIONS = ("sparse:DENSITY", "lowrank:RANK", "onebit", "onebit:rows", "int8", "int4")
WHOLE_NUMBERS = {"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool"}
PER, SIDES = ("tensor", "model"), ("columns", "rows")
KEPT_BYTES = 1 << 16  # of a tensor that only the base has: so much is held, as of position ids, and no more
MENDS = 1 / 16  # of the bytes of changes: so much is spent, at most, on numbers of the base that they do not give back
KEPT = "change_kept"  # among the facts of a delta
TOP = 0.05  # of a tensor's changes, the largest, whose places two deltas are compared by


@dataclass(frozen=True, eq=False, slots=True)
class Written:
    """A delta and the file that it was written to."""

    delta: Delta
    where: Path
    bytes: int


@dataclass(frozen=True, slots=True)
class Reverted:
    """The base as it was made again. exact: whether its weights are the base's, bit for bit."""

    where: Path
    exact: bool


def diff(
    base: str | Path, tuned: str | Path, *, out: str | Path, exact: bool = False, cache: Path | None = None
) -> Written:
    """What a fine-tune changed in its base, as a file; tensors that did not change take no room.

    exact: applying it gives the fine-tune bit for bit; else within one rounding of its type. Tensors that only the base
    has are held up to 64 kB each, and numbers of the base that the changes do not give back while they are few, so that
    it can be made again from the fine-tune.

    Raises `Refused` where the two are not of one architecture. Peak memory is the delta's, and one tensor's.
    """
    from headstart.io import deltas, model_folders
    from headstart.io.tensor_names import names_in
    from headstart.numerics.delta import Delta, Sparse, Whole, bytes_of, difference, mend

    deltas.refuse_other(Path(out).expanduser())
    root, model = model_folders.read(base), model_folders.read(tuned)
    theirs = names_in(root, model)
    if not theirs:
        raise Refused(
            f"`{model.name}` and `{root.name}` have no tensor in common",
            where="delta diff",
            fix="name the base that the model was fine-tuned from",
        )
    changes: dict[str, Form] = {}
    mends: dict[str, Sparse] = {}
    for name in model.tensors:
        after = deltas.tensor(model, name)
        before = deltas.tensor(root, theirs[name]) if name in theirs else None
        change = difference(before, after, exact=exact) if before is not None else Whole(after)
        if change is not None:
            changes[name] = change
        if change is not None and before is not None and (found := mend(change, before, after)) is not None:
            mends[name] = found
    if sum(map(bytes_of, mends.values())) > MENDS * sum(map(bytes_of, changes.values())):
        mends = {}
    facts = {
        "method": "diff", "exact": exact, "base": root.name, "tuned": model.name, "headstart": __version__,
        "tuned_weights": deltas.fingerprint(model, cache=cache), "tensors": {n: theirs.get(n) for n in model.tensors},
        "config": dict(model.config), "main": model.main, "base_config": dict(root.config),
        "base_types": {b: t for n, b in theirs.items() if (t := root.tensors[b].dtype) != model.tensors[n].dtype},
    }  # fmt: skip
    gone = tuple(n for n in root.tensors if n not in theirs.values())
    replaced = (theirs[n] for n, change in changes.items() if isinstance(change, Whole) and n in theirs)
    kept = {n: deltas.tensor(root, n) for n in (*gone, *replaced) if _is_held(root.tensors[n])}
    return _written(Delta(deltas.fingerprint(root, cache=cache), changes, gone, facts, kept, mends), out)


def apply(
    delta: str | Path, base: str | Path, *, out: str | Path, overwrite: bool = False, cache: Path | None = None
) -> Path:
    """The fine-tune that a delta describes, as a new folder, with the base's tokenizer and other files.

    Raises `Refused` for another base than the delta's, by its fingerprint. Peak memory is the delta's, and one
    tensor's.
    """
    from headstart.io import deltas, model_folders, shards
    from headstart.io.lineage import record
    from headstart.numerics.delta import Whole, applied, shape_of

    held, root = deltas.read(delta), model_folders.read(base)
    deltas.check_base(held, root, cache=cache)
    theirs = names_in_base(held, root)
    planned = []
    for name, source in theirs.items():
        change = held.changes.get(name)
        if source is None and not isinstance(change, Whole):
            raise Refused(
                f"the base has no tensor for `{name}`", where="delta apply", fix="apply it to the base it was made from"
            )
        if isinstance(change, Whole):
            values = change.values
            dtype = _code(values)
            planned.append(shards.Planned(name, dtype, tuple(values.shape), shards.folder_of(name)))
        else:
            assert source is not None  # refused above
            entry = root.tensors[source]
            if change is not None and tuple(shape_of(change)) != entry.shape:
                raise Unfit(
                    f"the change of `{name}` has another shape than the base's tensor",
                    where="delta apply",
                    fix="make the delta again",
                )
            planned.append(shards.Planned(name, entry.dtype, entry.shape, shards.folder_of(name)))

    def made(name: str) -> torch.Tensor:
        change, source = held.changes.get(name), theirs.get(name)
        before = deltas.tensor(root, source) if source is not None else None
        found = before if change is None else applied(change, before)
        assert found is not None  # checked above
        return found

    facts = held.facts
    note = record(facts.get("base"), held.base, facts.get("tuned"), facts.get("method"))
    return _folder(Path(out), planned, made, root, facts.get("config"), overwrite, note)


def revert(
    delta: str | Path, tuned: str | Path, *, out: str | Path, overwrite: bool = False, cache: Path | None = None
) -> Reverted:
    """The base that a delta was taken from, out of the fine-tune, as a new folder with the fine-tune's other files.

    Bit for bit where the delta holds the numbers that rounding took, as it does where they are few; else each within
    eps · (|base| + |tuned|) of the stored type. Tensors that the base has not, such as a new head, are left out.

    Raises `Refused` for another fine-tune than the delta's, by its fingerprint, and for a delta that does not hold what
    the base was: of tensors that were replaced as a whole, of large ones that are gone, and of smaller forms. Peak
    memory is the delta's, and one tensor's.
    """
    from headstart.io import deltas, model_folders, shards
    from headstart.numerics.delta import mended, reverted
    from headstart.numerics.made import FLOATS

    held, model = deltas.read(delta), model_folders.read(tuned)
    config, types = _of_the_base(held)
    mark = deltas.fingerprint(model, cache=cache)
    if mark != held.facts["tuned_weights"]:
        raise Refused(
            f"the delta was taken from another fine-tune than `{model.name}`",
            where=f"delta of {str(held.facts['tuned_weights'])[:12]}, weights {mark[:12]}",
            fix="name the model that it was taken from; `headstart delta info` says what is known of it",
        )
    theirs = _names_back(held, model)
    planned = []
    for name, source in theirs.items():
        entry = model.tensors[source]
        planned.append(shards.Planned(name, types.get(name, entry.dtype), entry.shape, shards.folder_of(name)))
    for name, values in held.kept.items():
        planned.append(shards.Planned(name, _code(values), tuple(values.shape), shards.folder_of(name)))
    codes = {one.name: one.dtype for one in planned}

    def made(name: str) -> torch.Tensor:
        if name in held.kept:
            return held.kept[name]
        change, after = held.changes.get(theirs[name]), deltas.tensor(model, theirs[name])
        found = after if change is None else reverted(change, after, FLOATS[codes[name]])
        by = held.mends.get(theirs[name])
        return found if by is None else mended(found, by)

    place = _folder(Path(out), planned, made, model, config, overwrite)
    return Reverted(place, deltas.fingerprint(model_folders.read(place)) == held.base)


def compress(delta: str | Path, form: str, *, out: str | Path, overwrite: bool = False) -> Written:
    """The same delta in a smaller form; tensors that are kept whole, such as new heads, stay as they are.

    form: `sparse:0.05` (the largest changes of each tensor), `lowrank:16` (matrices; others stay), `onebit` (signs and
    one size a tensor, or with `:rows` one a row), `int8` or `int4` (blocks of 64). Its facts tell how much of the
    change is kept, as `change_kept` does. overwrite: it may take the place of the delta that it is made of.
    """
    from headstart.io import deltas
    from headstart.numerics.delta import mapped

    _refuse_own_source(out, [delta], overwrite=overwrite)
    held = deltas.read(delta)
    smaller = _compression(form)
    made = mapped(held, lambda _, change: smaller(change))
    return _derived(made, out, "compress", form=form, **{KEPT: change_kept(held, made)})


def scale(delta: str | Path, by: float, *, out: str | Path) -> Written:
    """by · every change; tensors that are kept whole stay."""
    from headstart.io import deltas
    from headstart.numerics.delta_parts import multiplied

    if not math.isfinite(by):
        raise Unfit(f"a change cannot be scaled by {by}", where="delta scale", fix="give a number, like 0.5")
    return _derived(multiplied(deltas.read(delta), by), out, "scale", by=by)


def mask(
    delta: str | Path, other: str | Path, *, out: str | Path, outside: bool = False, overwrite: bool = False
) -> Written:
    """The changes where another delta of the same base has one too, or where its masks keep an entry.

    outside: where it has none. Of tensors that the other has not nothing is left, or with `outside` everything; tensors
    that are kept whole stay.
    """
    from headstart.io import deltas
    from headstart.numerics.delta_parts import limited

    _refuse_own_source(out, [delta, other], overwrite=overwrite)
    made = limited(deltas.read(delta), deltas.read(other), outside=outside)
    return _derived(made, out, "mask", by=Path(other).name, outside=outside)


def trim(
    delta: str | Path, density: float, *, out: str | Path, per: Literal["tensor", "model"] = "tensor",
    overwrite: bool = False,
) -> Written:  # fmt: skip
    """The largest changes: exactly that share of each tensor, or of all tensors together; of equal ones the first.

    Tensors that are kept whole stay, and do not count.
    """
    from headstart.io import deltas
    from headstart.numerics.delta_parts import trimmed
    from headstart.numerics.portions import fraction

    fraction(density, "density")
    if per not in PER:
        raise Unfit(f"per is `{per}`", where="--per", fix=f"use one of: {', '.join(PER)}")
    _refuse_own_source(out, [delta], overwrite=overwrite)
    held = deltas.read(delta)
    made = trimmed(held, density, per)
    return _derived(made, out, "trim", density=density, per=per, **{KEPT: change_kept(held, made)})


def project(
    delta: str | Path, other: str | Path, rank: int, *, out: str | Path, side: Literal["columns", "rows"] = "columns",
    off: bool = False, overwrite: bool = False,
) -> Written:  # fmt: skip
    """Every matrix in the span of another delta's first singular directions: of its columns (outputs) or rows (inputs).

    off: what is left without that part. Directions that are no more than rounding do not count. Vectors and tensors
    that are kept whole stay; of matrices that the other has not nothing is left, or with `off` everything.
    """
    from headstart.io import deltas
    from headstart.numerics.delta_parts import projected

    if rank < 1:
        raise Unfit(f"rank is {rank}", where="--rank", fix="give 1 or more directions")
    if side not in SIDES:
        raise Unfit(f"side is `{side}`", where="--side", fix=f"use one of: {', '.join(SIDES)}")
    _refuse_own_source(out, [delta, other], overwrite=overwrite)
    made = projected(deltas.read(delta), deltas.read(other), rank, side=side, away=off)
    return _derived(made, out, "project", by=Path(other).name, rank=rank, side=side, off=off)


def stack(paths: Sequence[str | Path], weights: Sequence[float] = (), *, out: str | Path) -> Written:
    """The weighted sum of deltas of one base; low-rank ones side by side, exactly."""
    from headstart.io import deltas
    from headstart.numerics.delta import stacked
    from headstart.numerics.portions import each

    held = [deltas.read(p) for p in paths]
    if not held:
        raise Unfit("there is nothing to stack", where="delta stack", fix="name two or more deltas")
    made = stacked(held, each(tuple(weights), len(held), "weights").tolist())
    named = [d.facts["tensors"] for d in held if isinstance(d.facts.get("tensors"), dict)]
    facts = {k: v for k, v in held[0].facts.items() if k in ("config", "main", "base")}
    facts |= {**made.facts, "of": [Path(p).name for p in paths]}
    if named:
        facts["tensors"] = {n: b for one in reversed(named) for n, b in one.items()}
    return _written(replace(made, facts=facts), out)


def compare(a: str | Path, b: str | Path) -> dict[str, Any]:
    """How alike two deltas of one base are, over the tensors that both change number by number.

    whole: tensors that both change and one keeps whole, of which nothing is known. cosine; norms; conflict: share of
    entries changed by both whose signs differ; overlap: of each tensor's largest changes (5 %), the Jaccard index of
    their places, averaged by entries.
    """
    from headstart.io import deltas
    from headstart.numerics.delta import Masked, Whole, dense, inner

    one, other = deltas.read(a), deltas.read(b)
    if one.base != other.base:
        raise Refused(
            "the deltas have different bases", where="delta compare", fix="compare deltas that were made from one base"
        )
    shared = [n for n in one.changes if n in other.changes]
    both = [n for n in shared if not any(isinstance(d.changes[n], Whole | Masked) for d in (one, other))]
    if not both:
        raise Refused(
            "no tensor changes in both, number by number",
            where="delta compare",
            fix="compare deltas of one architecture that were taken without --exact, which keeps tensors whole",
        )
    product = squares = others = conflicts = changed = overlap = entries = 0.0
    for name in both:
        x, y = one.changes[name], other.changes[name]
        product += inner(x, y)
        squares += inner(x, x)
        others += inner(y, y)
        left, right = dense(x).flatten(), dense(y).flatten()
        meet = (left != 0) & (right != 0)
        changed += float(meet.sum())
        conflicts += float((meet & (left * right < 0)).sum())
        overlap += _jaccard(left, right) * left.numel()
        entries += left.numel()
    scale = math.sqrt(squares * others)
    return {
        "tensors": len(both),
        "whole": len(shared) - len(both),
        "norms": [math.sqrt(squares), math.sqrt(others)],
        "cosine": product / scale if scale else 0.0,
        "conflict": conflicts / changed if changed else 0.0,
        "overlap": overlap / entries,
    }


def change_kept(before: Delta, after: Delta) -> float | None:
    """1 - (what a smaller form lost / the change) in squares, over all tensors that change by numbers.

    None where there is no change in numbers.
    """
    from headstart.numerics.delta import LINEAR, dense, needs_base

    total = lost = 0.0
    for name, change in before.changes.items():
        if isinstance(change, LINEAR) and not needs_base(change):
            left = after.changes.get(name)
            numbers = dense(change).double()
            total += float(numbers.square().sum())
            lost += float((numbers - (dense(left).double() if left is not None else 0)).square().sum())
    return 1 - lost / total if total else None


def described(delta: Delta, size: int) -> dict[str, Any]:
    """What is known of a delta: JSON values. change_kept: how much of the change a smaller form keeps."""
    from headstart.numerics.delta import bytes_of, shape_of

    rows: dict[str, list[int]] = {}
    for change in delta.changes.values():
        row = rows.setdefault(type(change).__name__.lower(), [0, 0, 0])
        row[0] += 1
        row[1] += math.prod(shape_of(change))
        row[2] += bytes_of(change)
    known = {k: v for k, v in delta.facts.items() if k not in ("tensors", "config", "base_config", "base_types", KEPT)}
    share = delta.facts.get(KEPT)
    listed = [{"form": f, "tensors": t, "entries": n, "bytes": b} for f, (t, n, b) in sorted(rows.items())]
    return {
        "base": delta.base, "bytes": size, "forms": listed, "gone": list(delta.gone), "kept": list(delta.kept),
        KEPT: share if isinstance(share, int | float) else None,
        "relative_error": math.sqrt(max(0.0, 1 - share)) if isinstance(share, int | float) else None, "facts": known,
    }  # fmt: skip


def _derived(made: Delta, out: str | Path, method: str, **told: Any) -> Written:
    """A delta made of another, whose facts it keeps but for those that are no longer true."""
    # which serve to take the very change back; how much is kept of a change, scaling does not alter
    untrue = ("exact", "tuned_weights", "base_config", "base_types", *((KEPT,) if method != "scale" else ()))
    kept = {k: v for k, v in made.facts.items() if k not in untrue}
    facts = {**kept, **told, "method": method, "of": made.facts.get("method")}
    return _written(replace(made, facts=facts, kept={}, mends={}), out)


def _refuse_own_source(out: str | Path, sources: Sequence[str | Path], *, overwrite: bool) -> None:
    """Raises `Refused` where a form that keeps less would replace what it is made of, which is then gone."""
    place = Path(out).expanduser()
    for source in map(Path, sources):
        if not overwrite and place.exists() and source.exists() and place.samefile(source):
            raise Refused(
                f"`{source.name}` would be replaced by what keeps less of it",
                where=f"`{place}`",
                fix="choose another file, or add --overwrite",
            )


def _written(delta: Delta, out: str | Path) -> Written:
    from headstart.io import deltas

    place = Path(out).expanduser().absolute()
    return Written(delta, place, deltas.write(delta, place))


def _compression(form: str) -> Callable[[Form], Form]:
    from headstart.numerics import delta as forms

    name, _, value = form.partition(":")
    try:
        if name == "sparse" and 0 < float(value) <= 1:
            return lambda change: forms.sparse(forms.dense(change), float(value))
        if name == "lowrank" and int(value) >= 1:
            return lambda change: _lower(change, int(value))
    except ValueError:
        pass  # answered below, as every other slip is
    if name == "onebit" and value in ("", "rows"):
        return lambda change: forms.one_bit(forms.dense(change), rows=value == "rows")
    if form == "int8":
        return lambda change: forms.quantised(forms.dense(change), 8)
    if form == "int4":
        return lambda change: forms.quantised(forms.dense(change), 4)
    raise Unfit(
        f"`{form}` is no form of a delta",
        where="--form",
        fix=f"use one of: {', '.join(COMPRESSIONS)}, as in sparse:0.05",
    )


def _lower(change: Form, rank: int) -> Form:
    """Matrices only, and only where it is smaller."""
    from headstart.numerics import delta as forms

    shape = forms.shape_of(change)
    if len(shape) < 2 or rank * (shape[0] + math.prod(shape[1:])) >= math.prod(shape):
        return change
    return (
        forms.truncated(change, rank)
        if isinstance(change, forms.LowRank)
        else forms.low_rank(forms.dense(change), rank)
    )


def _jaccard(left: torch.Tensor, right: torch.Tensor) -> float:
    count = max(1, round(TOP * left.numel()))
    top = [set(x.abs().argsort(descending=True, stable=True)[:count].tolist()) for x in (left, right)]
    return len(top[0] & top[1]) / len(top[0] | top[1])


def names_in_base(delta: Delta, root: ModelFolder) -> dict[str, str | None]:
    """Name in the result -> name in the base, as the delta says; without its word, the names are the base's."""
    told = delta.facts.get("tensors")
    if not isinstance(told, dict):
        told = {n: n if n in root.tensors else None for n in (*root.tensors, *delta.changes)}
    lost = [n for n in told.values() if n is not None and not (isinstance(n, str) and n in root.tensors)]
    if lost:
        raise Unfit(
            f"the delta names {ascii(lost[0])[:80]}, which its base has not",
            where="delta apply",
            fix="make the delta again",
        )
    return {str(n): str(b) if b is not None else None for n, b in told.items()}


def _code(values: torch.Tensor) -> str:
    from headstart.numerics.made import FLOATS

    code = next((c for c, dtype in FLOATS.items() if dtype == values.dtype), None)
    code = code or next((c for c, name in WHOLE_NUMBERS.items() if str(values.dtype) == f"torch.{name}"), None)
    if code is None:
        raise Unfit(f"a tensor is stored as {values.dtype}", where="delta apply", fix="make the delta again")
    return code


def _is_held(entry: Entry) -> bool:
    """Whether a delta holds what a tensor of the base is, where it is gone or replaced as a whole."""
    from headstart.numerics.made import FLOATS

    return entry.end - entry.start <= KEPT_BYTES and entry.dtype in (*FLOATS, *WHOLE_NUMBERS)


def _raw(tensor: torch.Tensor) -> Any:
    import torch

    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy()


def _folder(
    out: Path, planned: Sequence[Planned], made: Callable[[str], torch.Tensor], model: ModelFolder, config: Any,
    overwrite: bool, note: Mapping[str, Any] | None = None,
) -> Path:  # fmt: skip
    """Tensors as a new folder, with the model's files, the configuration that is told, and where it comes from."""
    from headstart.io import atomic, model_folders, shards
    from headstart.io.lineage import CHANGED

    place = out.expanduser().absolute()
    atomic.refuse_occupied(place, overwrite=overwrite)
    atomic.refuse_own_source(place, [model.where])
    layout = [s if s.folder else replace(s, folder=model.main) for s in shards.laid_out(planned, shards.SHARD_BYTES)]
    with atomic.new_folder(place, overwrite=overwrite) as staging:
        with shards.ShardWriter(staging, layout) as writer:
            for one in planned:
                writer.write(one.name, 0, _raw(made(one.name)))
                writer.finish(one.name, one.bytes)
            writer.complete()
        model_folders.carry(model, staging)
        if note is not None:
            (staging / CHANGED).write_text(atomic.dumps(note), encoding="utf-8")
        if isinstance(config, dict) and config:
            (staging / model.main / "config.json").write_text(atomic.dumps(config), encoding="utf-8")
    return place


def _of_the_base(delta: Delta) -> tuple[dict[str, Any], dict[str, str]]:
    """The base's configuration, and its types where the fine-tune has others. `Refused` where the delta lacks them."""
    known = ("tuned_weights", "base_config", "base_types", "tensors")
    if any(key not in delta.facts for key in known):
        method = delta.facts.get("method")
        raise Refused(
            "the delta does not tell the fine-tune and the base that it lies between",
            where=f"a delta by `{method}`" if method != "diff" else "a delta of an earlier version",
            fix="only what `headstart delta diff` takes can be taken back: name that file, or keep the base",
        )
    config, types, names = (delta.facts[key] for key in known[1:])
    if not isinstance(config, dict) or not isinstance(names, dict) or not isinstance(types, dict):
        raise Unfit("the delta's facts are none", where="delta revert", fix="make the delta again")
    return config, {str(n): str(t) for n, t in types.items()}


def _names_back(delta: Delta, model: ModelFolder) -> dict[str, str]:
    """Name in the base -> name in the fine-tune. Raises `Refused` for what the delta has forgotten, by name."""
    from headstart.numerics.delta import Whole, needs_base

    lost = [name for name in delta.gone if name not in delta.kept]
    if lost:
        raise Refused(
            f"`{lost[0]}` of the base is not in the fine-tune, and the delta does not hold it",
            where=f"delta revert: {len(lost)} lost",
            fix=f"keep the base; of tensors up to {KEPT_BYTES >> 10} kB, `headstart delta diff` holds what is gone",
        )
    named = {str(n): str(b) for n, b in delta.facts["tensors"].items() if b is not None}
    told = {n: b for n, b in named.items() if b not in delta.kept}
    for name in told:
        change = delta.changes.get(name)
        if name not in model.tensors:
            raise Unfit(
                f"the delta names {ascii(name)[:80]}, which its fine-tune has not",
                where="delta revert",
                fix="make the delta again",
            )
        if isinstance(change, Whole):
            raise Refused(
                f"`{name}` was replaced as a whole, and the delta does not hold what it was",
                where="delta revert",
                fix="keep the base; where both are floating-point numbers in one shape, take the delta without --exact",
            )
        if change is not None and needs_base(change):
            raise Refused(
                f"the change of `{name}` is of the form `{type(change).__name__.lower()}`, which forgets what it was",
                where="delta revert",
                fix="take the delta of the two models with `headstart delta diff`, or keep the base",
            )
    found: dict[str, str] = {}
    for name, base in told.items():
        found.setdefault(base, name)  # two names where the fine-tune stores twice what the base ties
    return found
