"""Delta: what changed from a base, in the form that suits it.

A change of one tensor is `Dense`, `Sparse`, `LowRank`, `OneBit`, `Quantised`, `Masked`, `Picked` of a change that is
kept once for several models, a `Sum` of these, or `Whole`: a tensor that takes the base's place, as a new head does.
Numbers are float32 unless said; `applied` rounds once.

Exact: `Whole` to the bit; `Dense` as far as base + change does not round, which `difference(…, exact=True)` sees to;
`Sparse` where the change was 0 elsewhere; `LowRank` of a product of that rank, in float32. `OneBit`, `Quantised` and
truncated forms lose what they lose, and `error` tells.

OneBit: Liu et al., "BitDelta: Your Fine-Tune May Only Be Worth One Bit", NeurIPS 2024. LowRank: Hu et al., "LoRA:
Low-Rank Adaptation of Large Language Models", ICLR 2022; with magnitudes Liu et al., "DoRA: Weight-Decomposed Low-Rank
Adaptation", ICML 2024. Blocks of integers: Dettmers et al., "8-bit Optimizers via Block-wise Quantization", ICLR 2022.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, Literal

import torch

from headstart.core import Unfit

QUANTISED_BLOCK = 64  # numbers that share a scale


@dataclass(frozen=True, eq=False, slots=True)
class Dense:
    """A change number by number. values (…)."""

    values: torch.Tensor


@dataclass(frozen=True, eq=False, slots=True)
class Whole:
    """A tensor that takes the place of the base's, or that the base has not. values (…), in their own type."""

    values: torch.Tensor


@dataclass(frozen=True, eq=False, slots=True)
class Sparse:
    """A change that is 0 nearly everywhere. values (entries,), in the order of their places, row-major.

    places, as `scattered` chooses: rising numbers (entries,), int32 or int64, or a bit for each entry of the tensor,
    packed as in `OneBit`, which is smaller where more than one entry of 32 changed.
    """

    shape: tuple[int, ...]
    places: torch.Tensor
    values: torch.Tensor


@dataclass(frozen=True, eq=False, slots=True)
class LowRank:
    """scale · left @ right as a matrix (out, the rest). left (out, rank), right (rank, rest).

    magnitude (out,): DoRA's, which sets the length of every row of base + product; then the change depends on the base.
    """

    shape: tuple[int, ...]
    left: torch.Tensor
    right: torch.Tensor
    scale: float = 1.0
    magnitude: torch.Tensor | None = None


@dataclass(frozen=True, eq=False, slots=True)
class OneBit:
    """± a size for every row. signs: packed, eight to a byte, the first in the lowest bit; sizes (rows,) or (1,)."""

    shape: tuple[int, ...]
    signs: torch.Tensor
    sizes: torch.Tensor


@dataclass(frozen=True, eq=False, slots=True)
class Quantised:
    """Integers times a scale for every block. codes: int8, or two 4-bit ones to a byte (the first in the low half)."""

    shape: tuple[int, ...]
    codes: torch.Tensor
    scales: torch.Tensor
    bits: Literal[8, 4] = 8
    block: int = QUANTISED_BLOCK


@dataclass(frozen=True, eq=False, slots=True)
class Masked:
    """The base where a bit is set, 0 elsewhere. kept: packed as in `OneBit`."""

    shape: tuple[int, ...]
    kept: torch.Tensor


@dataclass(frozen=True, eq=False, slots=True)
class Picked:
    """scale · a change that several models have in common, where a bit is set. kept: packed as in `OneBit`."""

    shape: tuple[int, ...]
    kept: torch.Tensor
    scale: float = 1.0


@dataclass(frozen=True, eq=False, slots=True)
class Sum:
    """Changes of one tensor, added up; none of them `Whole`, `Masked` or `Picked`."""

    parts: tuple[Form, ...]


Form = Dense | Whole | Sparse | LowRank | OneBit | Quantised | Masked | Picked | Sum
FORMS: dict[str, type[Any]] = {
    c.__name__.lower(): c for c in (Dense, Whole, Sparse, LowRank, OneBit, Quantised, Masked, Picked, Sum)
}
LINEAR = (Dense, Sparse, LowRank, OneBit, Quantised, Sum)  # what can be scaled and added without the base


@dataclass(frozen=True, eq=False, slots=True)
class Delta:
    """Changes by the base's names of tensors. base: fingerprint of its weights.

    gone: tensors of the base that the tuned model has not. facts: JSON values: method, lineage, labels.
    To take it back, kept: small tensors of the base that are gone or replaced as a whole; mends: of a change, numbers
    of the base that the tuned model less the change does not give to the bit.
    """

    base: str
    changes: Mapping[str, Form]
    gone: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    kept: Mapping[str, torch.Tensor] = field(default_factory=dict)
    mends: Mapping[str, Sparse] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return sum(bytes_of(c) for c in self.changes.values())


def tensors_of(form: Form) -> dict[str, torch.Tensor]:
    """The tensors that a form holds, by the names of its fields."""
    if isinstance(form, Sum):
        return {f"{i}.{n}": t for i, part in enumerate(form.parts) for n, t in tensors_of(part).items()}
    return {n: v for n in form.__slots__ if isinstance(v := getattr(form, n), torch.Tensor)}


def bytes_of(form: Form) -> int:
    return sum(t.numel() * t.element_size() for t in tensors_of(form).values())


def shape_of(form: Form) -> tuple[int, ...]:
    if isinstance(form, Sum):
        return shape_of(form.parts[0])
    return tuple(form.values.shape) if isinstance(form, Dense | Whole) else form.shape


def needs_base(form: Form) -> bool:
    """Whether the change is another one for another base."""
    if isinstance(form, Sum):
        return any(needs_base(p) for p in form.parts)
    return isinstance(form, Masked) or (isinstance(form, LowRank) and form.magnitude is not None)


# -- what a change is, and what it makes of its base -------------------------------------------------------------------


def dense(form: Form, base: torch.Tensor | None = None) -> torch.Tensor:
    """(…) the change as numbers, float32 (float64 of a float64 base). base: for forms that depend on it.

    >>> dense(scattered((2, 2), torch.tensor([1]), torch.tensor([3.0]))).tolist()
    [[0.0, 3.0], [0.0, 0.0]]
    """
    wide = torch.float64 if base is not None and base.dtype == torch.float64 else torch.float32
    if isinstance(form, Dense):
        return form.values.to(wide)
    if isinstance(form, Sum):
        return torch.stack([dense(p, base) for p in form.parts]).sum(dim=0)
    if isinstance(form, Sparse):
        out = torch.zeros(prod(form.shape), dtype=wide)
        out[places_of(form)] = form.values.to(wide)
        return out.view(form.shape)
    if isinstance(form, OneBit):
        ones = _unpacked(form.signs, prod(form.shape)).view(form.shape).to(wide) * 2 - 1
        rows = form.sizes.to(wide)
        return ones * (rows if len(rows) == 1 else rows.view(-1, *[1] * (len(form.shape) - 1)))
    if isinstance(form, Quantised):
        codes = _codes(form).to(wide).view(-1, form.block)
        return (codes * form.scales.to(wide)[:, None]).view(-1)[: prod(form.shape)].view(form.shape)
    if isinstance(form, LowRank) and form.magnitude is None:
        return _product(form, wide).view(form.shape)
    if isinstance(form, Picked):
        raise Unfit(
            "a change of the form `picked` is a part of one that lies elsewhere",
            where="delta",
            fix="predict with the merged folder that it belongs to",
        )
    if base is None:
        raise Unfit(
            f"a change of the form `{type(form).__name__.lower()}` depends on its base",
            where="delta",
            fix="give the base, or apply the delta first",
        )
    return _made(form, base).to(wide) - base.to(wide)


def applied(form: Form, base: torch.Tensor | None) -> torch.Tensor:
    """The tuned tensor, in the base's type; rounded once.

    >>> applied(Dense(torch.tensor([0.5])), torch.tensor([1.0])).tolist()
    [1.5]
    """
    if isinstance(form, Whole):
        return form.values
    if base is None:
        raise Unfit("the base has no such tensor", where="delta", fix="apply it to the base that it was made from")
    if isinstance(form, Masked) or (isinstance(form, LowRank) and form.magnitude is not None):
        return _made(form, base).to(base.dtype)
    change = dense(form, base)
    wide = base.to(change.dtype)
    return torch.where(change == 0, wide, wide + change).to(base.dtype)  # minus zero stays what it is


def reverted(form: Form, tuned: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The base's tensor, in its type; rounded once. `Unfit` for forms that do not hold what the base was.

    To the bit where no subtraction rounds: of changes in the base's own type those that left a number between its half
    and its double. Elsewhere within eps · (|base| + |tuned|) of the stored type.

    >>> reverted(Dense(torch.tensor([0.5])), torch.tensor([1.5]), torch.float32).tolist()
    [1.0]
    """
    if isinstance(form, Whole):
        raise Unfit("a tensor that is kept whole does not hold the base's", where="delta", fix="keep the base")
    if needs_base(form):
        raise _bound(form, "taken back")
    wide = torch.float64 if torch.float64 in (tuned.dtype, dtype) else torch.float32
    change = dense(form, tuned.to(wide))
    return torch.where(change == 0, tuned.to(wide), tuned.to(wide) - change).to(dtype)


def mend(form: Form, base: torch.Tensor, tuned: torch.Tensor) -> Sparse | None:
    """The base's numbers where `reverted` gives other bits; None where it gives none, and for forms it does not take.

    >>> mend(Dense(torch.tensor([1.0, 1.0])), torch.tensor([1e-9, 0.0]), torch.tensor([1.0, 1.0])).values.tolist()
    [9.999999717180685e-10]
    """
    if isinstance(form, Whole) or needs_base(form):
        return None
    found = reverted(form, tuned, base.dtype)
    width = base.element_size()
    other = (_bits(found).view(-1, width) != _bits(base).view(-1, width)).any(dim=1)
    places = other.nonzero().flatten()
    return scattered(tuple(base.shape), places, base.flatten()[places]) if len(places) else None


def mended(found: torch.Tensor, by: Sparse) -> torch.Tensor:
    """With numbers in the places of a mend."""
    flat = found.flatten()
    flat[places_of(by)] = by.values.to(found.dtype)
    return flat.view(found.shape)


def _made(form: Form, base: torch.Tensor) -> torch.Tensor:
    """Tuned tensors of the forms that depend on the base, before they are rounded."""
    if isinstance(form, Whole):
        return form.values
    if isinstance(form, Masked):
        return torch.where(kept_by(form), base, torch.zeros_like(base))
    assert isinstance(form, LowRank)  # the other forms do not
    assert form.magnitude is not None
    wide = torch.float64 if base.dtype == torch.float64 else torch.float32
    moved = base.to(wide).flatten(1) + _product(form, wide)
    length = moved.norm(dim=1, keepdim=True)
    return torch.mul(form.magnitude.to(wide)[:, None] / length, moved).view(form.shape)


def _product(form: LowRank, wide: torch.dtype) -> torch.Tensor:
    return form.scale * torch.mm(form.left.to(wide), form.right.to(wide))


def difference(base: torch.Tensor, tuned: torch.Tensor, *, exact: bool = False) -> Form | None:
    """What changed, in the type of both, else in float32; None where no bit did.

    exact: a tensor of which base + change would have other bits is kept whole, which takes no more room.
    """
    if base.dtype == tuned.dtype and torch.equal(_bits(base), _bits(tuned)):
        return None
    numbers = base.is_floating_point() and tuned.is_floating_point()
    if base.shape != tuned.shape or not numbers or (exact and base.dtype != tuned.dtype):
        return Whole(tuned)
    wide = torch.float64 if tuned.dtype in (torch.float32, torch.float64) else torch.float32
    kept = tuned.dtype if tuned.dtype == base.dtype else torch.float32
    change = Dense((tuned.to(wide) - base.to(wide)).to(kept))
    if not bool(change.values.isfinite().all()):
        return Whole(tuned)
    same = torch.equal(_bits(applied(change, base)), _bits(tuned))
    return change if same or not exact else Whole(tuned)


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view(-1).view(torch.uint8)


# -- arithmetic --------------------------------------------------------------------------------------------------------


def scaled(form: Form, by: float) -> Form:
    """by · the change; `Unfit` for forms that depend on the base."""
    if isinstance(form, Dense):
        return Dense(by * form.values.float())
    if isinstance(form, Sparse):
        return replace(form, values=by * form.values.float())
    if isinstance(form, LowRank) and form.magnitude is None:
        return replace(form, scale=by * form.scale)
    if isinstance(form, OneBit):
        return replace(form, sizes=by * form.sizes.float())
    if isinstance(form, Quantised):
        return replace(form, scales=by * form.scales.float())
    if isinstance(form, Sum):
        return Sum(tuple(scaled(p, by) for p in form.parts))
    raise _bound(form, "scaled")


def added(forms: Sequence[Form]) -> Form:
    """The sum of changes of one tensor: low-rank ones side by side, exactly; others by number, or kept as a sum."""
    if len(forms) == 1:
        return forms[0]
    for form in forms:
        if not isinstance(form, LINEAR) or needs_base(form):
            raise _bound(form, "added")
    if all(isinstance(f, LowRank) for f in forms):
        return side_by_side([f for f in forms if isinstance(f, LowRank)])
    if all(isinstance(f, Dense | Sparse) for f in forms) and any(isinstance(f, Dense) for f in forms):
        return Dense(torch.stack([dense(f) for f in forms]).sum(dim=0))
    return Sum(tuple(p for f in forms for p in (f.parts if isinstance(f, Sum) else (f,))))


def side_by_side(forms: Sequence[LowRank]) -> LowRank:
    """The exact sum of low-rank changes: their ranks add up."""
    left = torch.cat([f.scale * f.left.float() for f in forms], dim=1)
    right = torch.cat([f.right.float() for f in forms], dim=0)
    return LowRank(forms[0].shape, left, right)


def inner(a: Form, b: Form) -> float:
    """The inner product of two changes, in float64; of low-rank ones without making them dense."""
    if isinstance(a, LowRank) and isinstance(b, LowRank) and a.magnitude is None and b.magnitude is None:
        across = a.left.double().T @ b.left.double()
        return float(a.scale * b.scale * (across * (a.right.double() @ b.right.double().T)).sum())
    return float((dense(a).double() * dense(b).double()).sum())


def _bound(form: Form, what: str) -> Unfit:
    return Unfit(
        f"a change of the form `{type(form).__name__.lower()}` depends on its base, and cannot be {what} alone",
        where="delta",
        fix="apply the delta to its base, and take the difference again",
    )


# -- smaller forms -----------------------------------------------------------------------------------------------------


def sparse(change: torch.Tensor, density: float) -> Sparse:
    """The largest round(density · entries) numbers, of equal ones the first; at least one."""
    flat = change.float().flatten()
    count = max(1, round(density * flat.numel()))
    order = flat.abs().argsort(descending=True, stable=True)[:count].sort().values
    return scattered(tuple(change.shape), order, flat[order])


def scattered(shape: tuple[int, ...], places: torch.Tensor, values: torch.Tensor) -> Sparse:
    """Numbers at places (entries,) int64, rising; the places are held in the form that takes the fewest bytes.

    >>> scattered((2, 20), torch.tensor([3]), torch.tensor([1.0])).places
    tensor([3], dtype=torch.int32)
    >>> scattered((2, 4), torch.tensor([0, 1, 7]), torch.ones(3)).places
    tensor([131], dtype=torch.uint8)
    """
    size = prod(shape)
    numbers = places.to(torch.int32 if size <= 2**31 else torch.int64)
    if -(-size // 8) >= numbers.numel() * numbers.element_size():
        return Sparse(shape, numbers, values)
    bits = torch.zeros(size, dtype=torch.bool)
    bits[places] = True
    return Sparse(shape, _packed(bits), values)


def places_of(form: Sparse) -> torch.Tensor:
    """(entries,) int64, rising."""
    if form.places.dtype == torch.uint8:
        return _unpacked(form.places, prod(form.shape)).nonzero().flatten()
    return form.places.long()


def low_rank(change: torch.Tensor, rank: int) -> LowRank:
    """The nearest change of that rank, by its largest singular values; more axes than two are taken as a matrix."""
    matrix = change.float().flatten(1)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    root = values[:rank].sqrt()  # both factors of one size, so that either survives a narrow type
    return LowRank(tuple(change.shape), left[:, :rank] * root, root[:, None] * right[:rank])


def smaller_of(change: torch.Tensor, share: float) -> LowRank | Dense:
    """The nearest change of that share of the rank, at least 1; itself where two factors would take as much room.

    >>> smaller_of(torch.eye(4), 0.25).left.shape, type(smaller_of(torch.eye(4), 0.5)).__name__
    (torch.Size([4, 1]), 'Dense')
    """
    if change.dim() < 2:
        return Dense(change)
    high, wide = change.flatten(1).shape
    rank = max(1, round(share * min(high, wide)))
    return low_rank(change, rank) if rank * (high + wide) < high * wide else Dense(change)


def truncated(form: LowRank, rank: int) -> LowRank:
    """The nearest low-rank change of a smaller rank, by a matrix of the two ranks alone."""
    if form.magnitude is not None:
        raise _bound(form, "truncated")
    left, outer = torch.linalg.qr(form.scale * form.left.double())
    right, inside = torch.linalg.qr(form.right.double().T)
    u, values, v = torch.linalg.svd(outer @ inside.T, full_matrices=False)
    root = values[:rank].sqrt()
    return LowRank(form.shape, (left @ u[:, :rank] * root).float(), (root[:, None] * v[:rank] @ right.T).float())


def one_bit(change: torch.Tensor, *, rows: bool = False) -> OneBit:
    """Signs, and the mean size of each row or of all: the size that is nearest in squares. 0 counts as plus."""
    wide = change.float()
    sizes = wide.abs().flatten(1).mean(dim=1) if rows and change.dim() > 1 else wide.abs().mean().view(1)
    return OneBit(tuple(change.shape), _packed(wide.flatten() >= 0), sizes)


def quantised(change: torch.Tensor, bits: Literal[8, 4] = 8, block: int = QUANTISED_BLOCK) -> Quantised:
    """Integers from -127 to 127 (-7 to 7), each block's largest size the largest of them."""
    most = 127 if bits == 8 else 7
    flat = change.float().flatten()
    padded = torch.nn.functional.pad(flat, (0, -len(flat) % block)).view(-1, block)
    scales = padded.abs().amax(dim=1) / most
    codes = (padded / torch.where(scales == 0, 1, scales)[:, None]).round().to(torch.int8).flatten()
    if bits == 4:
        pairs = (codes + 8).to(torch.uint8).view(-1, 2)
        codes = pairs[:, 0] | (pairs[:, 1] << 4)
    return Quantised(tuple(change.shape), codes, scales, bits, block)


def picked(kept: torch.Tensor, scale: float = 1.0) -> Picked:
    """kept: booleans of the tensor's shape."""
    return Picked(tuple(kept.shape), _packed(kept.flatten()), scale)


def part_of(form: Picked, common: torch.Tensor) -> Dense:
    """
    >>> part_of(picked(torch.tensor([True, False]), 2.0), torch.tensor([1.0, 3.0])).values.tolist()
    [2.0, 0.0]
    """
    kept = _unpacked(form.kept, prod(form.shape)).view(form.shape)
    return Dense(form.scale * torch.where(kept, common.float(), torch.zeros((), dtype=torch.float32)))


def masked(kept: torch.Tensor) -> Masked:
    """kept: booleans of the tensor's shape."""
    return Masked(tuple(kept.shape), _packed(kept.flatten()))


def kept_by(form: Masked) -> torch.Tensor:
    """(…) booleans: the entries that a mask keeps.

    >>> kept_by(masked(torch.tensor([[True, False]]))).tolist()
    [[True, False]]
    """
    return _unpacked(form.kept, prod(form.shape)).view(form.shape)


def _codes(form: Quantised) -> torch.Tensor:
    if form.bits == 8:
        return form.codes
    halves = torch.stack([form.codes & 15, form.codes >> 4], dim=1).flatten()
    return halves.to(torch.int8) - 8


def _packed(bits: torch.Tensor) -> torch.Tensor:
    """Eight booleans to a byte, the first in the lowest bit."""
    rows = torch.nn.functional.pad(bits.to(torch.uint8), (0, -len(bits) % 8)).view(-1, 8)
    return (rows << torch.arange(8, dtype=torch.uint8)).sum(dim=1).to(torch.uint8)


def _unpacked(packed: torch.Tensor, count: int) -> torch.Tensor:
    rows = (packed[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1
    return rows.flatten()[:count].bool()


def narrowed(form: Form, dtype: torch.dtype) -> Form:
    """The same change with its numbers in a narrower type; signs, places and codes stay."""
    if isinstance(form, Sum):
        return Sum(tuple(narrowed(p, dtype) for p in form.parts))
    wide: dict[str, Any] = {
        n: t.to(dtype) for n, t in tensors_of(form).items() if t.dtype in (torch.float32, torch.float64)
    }
    return replace(form, **wide) if wide else form


# -- whole deltas ------------------------------------------------------------------------------------------------------


def mapped(delta: Delta, change: Callable[[str, Form], Form]) -> Delta:
    """The delta with every change but whole tensors replaced."""
    kept = {n: c if isinstance(c, Whole | Masked) else change(n, c) for n, c in delta.changes.items()}
    return replace(delta, changes=kept)


def check_bases(deltas: Sequence[Delta]) -> None:
    """Raises `Unfit` for deltas of different bases, whose entries mean different things."""
    bases = {d.base for d in deltas}
    if len(bases) > 1:
        raise Unfit(f"the deltas have {len(bases)} bases", where="delta", fix="use deltas of one base")


def stacked(deltas: Sequence[Delta], weights: Sequence[float]) -> Delta:
    """Σ weight · delta. A whole tensor must be the same in all that have it. Raises `Unfit` for different bases."""
    check_bases(deltas)
    changes: dict[str, Form] = {}
    for name in dict.fromkeys(n for d in deltas for n in d.changes):
        having = [(d.changes[name], w) for d, w in zip(deltas, weights, strict=True) if name in d.changes]
        whole = [f for f, _ in having if isinstance(f, Whole)]
        if not whole:
            changes[name] = added([scaled(f, w) for f, w in having])
        elif len(whole) == len(having) and all(torch.equal(_bits(f.values), _bits(whole[0].values)) for f in whole):
            changes[name] = whole[0]
        else:
            raise Unfit(
                f"`{name}` is replaced as a whole, and differently, by several deltas",
                where="stack",
                fix="merge the models with `headstart merge`, which knows how to treat heads",
            )
    gone = tuple(dict.fromkeys(n for d in deltas for n in d.gone))
    return Delta(deltas[0].base, changes, gone, {"method": "stack"})


def products(deltas: Sequence[Delta]) -> torch.Tensor:
    """(deltas, deltas) inner products over the tensors that change in both, float64; whole tensors are left out."""
    out = torch.zeros(len(deltas), len(deltas), dtype=torch.float64)
    for i, a in enumerate(deltas):
        for j, b in enumerate(deltas[: i + 1]):
            shared = [n for n in a.changes if n in b.changes]
            pairs = [(a.changes[n], b.changes[n]) for n in shared]
            total = sum(
                inner(f, g) for f, g in pairs if not isinstance(f, Whole | Masked) and not isinstance(g, Whole | Masked)
            )
            out[i, j] = out[j, i] = total
    return out
