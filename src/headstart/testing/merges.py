"""What a merge must do, and what it may claim, whichever of its kinds it is: all run through the stream."""

from __future__ import annotations

import dataclasses
import functools
import random
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from headstart.core import TensorContext
from headstart.io import safetensors_files, shards
from headstart.numerics.made import Kind, Made, Memory, Part
from headstart.numerics.stream import Stopped, run

Law = Callable[..., None]
CODES = {torch.float32: ("F32", 4), torch.float64: ("F64", 8), torch.bfloat16: ("BF16", 2), torch.float16: ("F16", 2)}
SHAPES = {"layer.weight": (6, 5), "layer.bias": (5,), "scale": ()}
Weights = dict[str, torch.Tensor]
# settings at which a method takes all that changed, as it is; of those that it has
WHOLE: dict[str, Any] = {
    "density": 1.0, "outliers": 0.0, "scale": 1.0, "alpha": 1.0, "epsilon": 0.0, "strictness": 0.0,
}  # fmt: skip
MEAN: dict[str, Any] = {"normalize": True, "consensus": "elect", "average": "count", "rise": 0.0}  # not a sum
NOTHING: dict[str, Any] = {"scale": 0.0, "alpha": 0.0, "t": 0.0, "shallow": 0.0, "rise": 0.0}
FAR = 1e6  # further than any entry moves


def any_context(shape: tuple[int, ...] = (6, 5)) -> TensorContext:
    return TensorContext(name="layer.weight", shape=shape)


def draw(method: Any, seed: int, dtype: torch.dtype = torch.float32, **shapes: tuple[int, ...]) -> list[Weights]:
    """A base, and as many fine-tunes of it as the method takes: three, if it is free to."""
    g = torch.Generator().manual_seed(seed)
    models = min(max(3, method.needs.fewest), method.needs.most or 3)
    base = {n: torch.randn(s, generator=g) for n, s in (shapes or SHAPES).items()}
    tuned = [{n: w + 0.1 * torch.randn(w.shape, generator=g) for n, w in base.items()} for _ in range(models)]
    return [{n: w.to(dtype) for n, w in one.items()} for one in (base, *tuned)]


def merged(
    kind: Kind, method: Any, base: Weights, tuned: Sequence[Weights], *, threads: int = 1, tile: int = 1 << 18,
    seed: int = 0,
) -> Weights:  # fmt: skip
    """All tensors merged in memory, by the engine that does it on disk."""
    out = Memory({n: torch.empty_like(w) for n, w in base.items()})
    readers = [Memory(base), *map(Memory, tuned)]
    run(_made(kind, method, base, tuned), readers, out, seed=seed, threads=threads, tile=tile)
    return out.tensors


def _made(kind: Kind, method: Any, base: Weights, tuned: Sequence[Weights]) -> list[Made]:
    return [
        Made(
            n, *CODES[w.dtype], tuple(w.shape), Part(0, n, CODES[w.dtype][0]),
            tuple(Part(k + 1, n, CODES[t[n].dtype][0]) for k, t in enumerate(tuned)), kind, method,
        )
        for n, w in base.items()
    ]  # fmt: skip


def same(a: Weights, b: Weights) -> bool:
    """Bit for bit, minus zero and all."""
    return all(torch.equal(a[n].reshape(-1).view(torch.uint8), b[n].reshape(-1).view(torch.uint8)) for n in b)


def close(a: Weights, b: Weights, rtol: float | None = None, atol: float | None = None) -> None:
    for name in b:
        torch.testing.assert_close(a[name], b[name], rtol=rtol, atol=atol)


def plainly(method: Any, **settings: Any) -> Any:
    """The method with those of the settings that it has."""
    known = {f.name for f in dataclasses.fields(method)}
    return dataclasses.replace(method, **{k: v for k, v in settings.items() if k in known})


def shape_and_dtype(kind: Kind, method: Any, seed: int) -> None:
    base, *tuned = draw(method, seed)
    kept = [{n: w.clone() for n, w in one.items()} for one in (base, *tuned)]
    out = merged(kind, method, base, tuned)
    for name, weight in base.items():
        assert out[name].shape == weight.shape
        assert out[name].dtype == weight.dtype
        assert bool(out[name].isfinite().all())
    assert all(same(a, b) for a, b in zip((base, *tuned), kept, strict=True)), "changes its input"


def repeatable(kind: Kind, method: Any, seed: int) -> None:
    base, *tuned = draw(method, seed)
    assert same(merged(kind, method, base, tuned), merged(kind, method, base, tuned))


def no_change_no_change(kind: Kind, method: Any, seed: int) -> None:
    """Sources that equal the base give the base: bit for bit where changes are merged, else within one rounding."""
    for dtype in (torch.float32, torch.bfloat16):
        base, *tuned = draw(method, seed, dtype)
        base["layer.weight"][0, :2] = torch.tensor([-0.0, float("-inf")])
        out = merged(kind, method, base, [base] * len(tuned))
        if method.needs.same_base:
            assert same(out, base)
        else:
            close(out, base, rtol=torch.finfo(dtype).eps, atol=0)


def pieces_change_no_bit(kind: Kind, method: Any, seed: int) -> None:
    """Tiles and threads are nobody's business."""
    base, *tuned = draw(method, seed, torch.bfloat16, a=(90, 300), b=(7,))
    whole = merged(kind, method, base, tuned, seed=seed)
    assert same(merged(kind, method, base, tuned, threads=2, tile=1 << 13, seed=seed), whole)


def files_and_restarts_change_no_bit(kind: Kind, method: Any, seed: int) -> None:
    """Nor is how weights are spread over files, or that a merge was stopped on its way and went on."""
    base, *tuned = draw(method, seed, torch.bfloat16, a=(9, 30), b=(7,), c=(12, 4), d=(), e=(3, 5))
    made, chance = _made(kind, method, base, tuned), random.Random(seed)
    left = [chance.randrange(1, sum(m.bytes for m in made))]  # bytes until it is stopped

    def stopped(more: int) -> bool:
        left[0] -= more
        return left[0] > 0

    with tempfile.TemporaryDirectory() as held, ExitStack() as stack:
        inputs = [_saved(Path(held, str(k)), one, chance) for k, one in enumerate((base, *tuned))]
        readers = [stack.enter_context(one) for one in inputs]
        out, layout = Path(held, "out"), _spread(base, chance)
        out.mkdir()
        try:
            with shards.ShardWriter(out, layout) as writer:
                run(made, readers, writer, seed=seed, threads=1, tile=64, report=stopped)
        except Stopped:
            pass
        with shards.ShardWriter(out, layout) as writer:
            run(made, readers, writer, done=writer.done, seed=seed, threads=1)
            writer.complete()
        assert same(_loaded(out, base), merged(kind, method, base, tuned, seed=seed))


def _spread(weights: Weights, chance: random.Random) -> list[shards.Shard]:
    """Files of one tensor each, of some, or one file of all, in some order."""
    planned = [shards.Planned(n, CODES[w.dtype][0], tuple(w.shape)) for n, w in weights.items()]
    return shards.laid_out(chance.sample(planned, len(planned)), chance.choice([1, 200, 10**9]))


def _saved(folder: Path, weights: Weights, chance: random.Random) -> shards.Checkpoint:
    folder.mkdir()
    for shard in _spread(weights, chance):
        data = bytearray(shard.header.ljust(shard.bytes))
        for name, start in shard.places.items():
            held = weights[name].reshape(-1).view(torch.uint8).numpy().tobytes()
            data[start : start + len(held)] = held
        (folder / shard.name).write_bytes(data)
    return _checkpoint(folder)


def _checkpoint(folder: Path) -> shards.Checkpoint:
    return shards.Checkpoint({e.name: e for e in safetensors_files.entries(sorted(folder.glob("*.safetensors")))})


def _loaded(folder: Path, like: Weights) -> Weights:
    found = {n: torch.empty_like(w) for n, w in like.items()}
    with _checkpoint(folder) as checkpoint:
        for name, weight in found.items():
            checkpoint.read(name, 0, weight.reshape(-1).view(torch.uint8).numpy())
    return found


def mixed_types(kind: Kind, method: Any, seed: int) -> None:
    """Each tensor is read as what it is, and rounded once to the type of the base."""
    base, *tuned = draw(method, seed, torch.bfloat16)
    wide = merged(kind, method, *_widened(base, tuned))
    other = [tuned[0], *({n: w.float() for n, w in t.items()} for t in tuned[1:])]
    out = merged(kind, method, base, other)
    close(out, {n: w.bfloat16() for n, w in wide.items()}, rtol=2**-7, atol=1e-6)  # a step of bfloat16


def _widened(base: Weights, tuned: Sequence[Weights]) -> tuple[Weights, list[Weights]]:
    def wide(one: Weights) -> Weights:
        return {n: w.float() for n, w in one.items()}

    return wide(base), [wide(t) for t in tuned]


def source_order(kind: Kind, method: Any, seed: int) -> None:
    base, *tuned = draw(method, seed)
    close(merged(kind, method, base, tuned), merged(kind, method, base, tuned[::-1]))


def source_order_without_chance(kind: Kind, method: Any, seed: int) -> None:
    """The order of models decides what is drawn for which, and where nothing is drawn, at density 1, about nothing."""
    source_order(kind, plainly(method, density=1.0), seed)


def agreement(kind: Kind, method: Any, seed: int) -> None:
    """Copies of one fine-tune merge to what one alone gives, or where one alone is too few, to that fine-tune."""
    base, one, *rest = draw(method, seed)
    alone = merged(kind, method, base, [one]) if method.needs.fewest == 1 else one
    close(merged(kind, method, base, [one] * (1 + len(rest))), alone)


def copies(kind: Kind, method: Any, seed: int) -> None:
    """Copies of one fine-tune, with nothing trimmed or scaled and their mean taken, give that fine-tune."""
    base, one, *rest = draw(method, seed)
    out = merged(kind, plainly(method, **WHOLE, **MEAN), base, [one] * (1 + len(rest)))
    close(out, one, rtol=1e-6, atol=1e-6)


def copies_of_a_sum(kind: Kind, method: Any, seed: int) -> None:
    """Of K copies whose changes are summed, with nothing trimmed and at scale 1 / K, it is that fine-tune."""
    base, one, *rest = draw(method, seed)
    models = 1 + len(rest)
    out = merged(kind, plainly(method, **{**WHOLE, "scale": 1 / models}), base, [one] * models)
    close(out, one, rtol=1e-6, atol=1e-6)


def one_model(kind: Kind, method: Any, seed: int) -> None:
    """One model, with nothing trimmed or scaled, gives that model."""
    base, one, *_ = draw(method, seed)
    out = merged(kind, plainly(method, **WHOLE, t=FAR), base, [one])
    close(out, one, rtol=1e-6, atol=1e-6)  # base + (one - base) in float32, of numbers near 1


def scale_zero(kind: Kind, method: Any, seed: int) -> None:
    """At scale 0, or at 0 of what else says how far it goes, the base stays, bit for bit."""
    base, *tuned = draw(method, seed)
    least = plainly(method, **NOTHING)
    assert least != method, "has no setting that says how far it goes"
    assert same(merged(kind, least, base, tuned), base)


def sign_symmetry(kind: Kind, method: Any, seed: int) -> None:
    """Changes of the other sign give the change of the other sign."""
    base, *tuned = draw(method, seed)
    there = merged(kind, method, base, tuned)
    back = merged(kind, method, base, [{n: 2 * base[n] - w for n, w in t.items()} for t in tuned])
    for name, weight in base.items():
        # differences of float32 numbers near 1
        torch.testing.assert_close(there[name] - weight, weight - back[name], atol=1e-5, rtol=1e-4)


def base_is_left_out(kind: Kind, method: Any, seed: int) -> None:
    """Another base gives the same weights."""
    base, *tuned = draw(method, seed)
    close(merged(kind, method, base, tuned), merged(kind, method, {n: w + 1 for n, w in base.items()}, tuned))


def seeds_differ(kind: Kind, method: Any, seed: int) -> None:
    """Another seed draws something else, and so does another tensor's name."""
    base, *tuned = draw(method, seed, torch.float32, a=(40, 30))
    one = merged(kind, method, base, tuned, seed=1)
    assert not same(one, merged(kind, method, base, tuned, seed=2))
    renamed = merged(kind, method, {"b": base["a"]}, [{"b": t["a"]} for t in tuned], seed=1)
    assert not torch.equal(one["a"], renamed["b"])


def of_kind(kind: Kind) -> tuple[list[Law], dict[str, Law]]:
    """The laws of all methods of a kind of merge, and those that they may claim."""

    def bound(law: Law) -> Law:
        return functools.update_wrapper(functools.partial(law, kind), law)

    always = (
        shape_and_dtype, repeatable, no_change_no_change, pieces_change_no_bit, files_and_restarts_change_no_bit,
        mixed_types,
    )  # fmt: skip
    claims = (
        source_order, source_order_without_chance, agreement, copies, copies_of_a_sum, one_model, scale_zero,
        sign_symmetry, base_is_left_out, seeds_differ,
    )  # fmt: skip
    return [bound(law) for law in always], {law.__name__: bound(law) for law in claims}
