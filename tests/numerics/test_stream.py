"""The stream: sums against exact arithmetic, rows from elsewhere, errors of one thread, and what is told."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from headstart.combination.weighting.linear import Linear
from headstart.combination.weighting.task_arithmetic import TaskArithmetic
from headstart.core import Needs, Survey, TensorContext, Unreadable
from headstart.io.safetensors_files import entries
from headstart.io.shards import Checkpoint, Planned, ShardWriter, laid_out
from headstart.numerics.changes import Combine
from headstart.numerics.dry import bytes_read
from headstart.numerics.made import Made, Memory, Part
from headstart.numerics.stream import Stopped, run
from headstart.testing.merges import merged

DTYPES = [torch.bfloat16, torch.float16, torch.float32]


@given(st.integers(0, 10_000), st.sampled_from([1, 2, 4]))
def test_means_of_bfloat16_are_the_exact_means_rounded_once(seed: int, models: int) -> None:
    """Weights that are powers of two make no error of their own; the exact mean is found in fractions."""
    g = torch.Generator().manual_seed(seed)
    tuned = [{"w": (10 * torch.randn(20, generator=g)).bfloat16()} for _ in range(models)]
    out = merged("weighting", Linear(), {"w": torch.zeros(20).bfloat16()}, tuned)["w"]
    for i, value in enumerate(out.tolist()):
        exact = sum(Fraction(t["w"][i].item()) for t in tuned) / models
        around = torch.tensor([value]).bfloat16()
        steps = [torch.nextafter(around, torch.tensor([s]).bfloat16()).item() for s in (-1e9, 1e9)]
        assert abs(Fraction(value) - exact) <= min(abs(Fraction(s) - exact) for s in steps)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_result_is_within_one_rounding_of_the_exact_sum(dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(0)
    base = {"w": torch.randn(300, generator=g, dtype=torch.float64).to(dtype)}
    tuned = [{"w": torch.randn(300, generator=g, dtype=torch.float64).to(dtype)} for _ in range(7)]
    out = merged("weighting", TaskArithmetic(scale=1 / 7), base, tuned)["w"]
    exact = base["w"].double() + torch.stack([t["w"].double() - base["w"].double() for t in tuned]).sum(dim=0) / 7
    rounding = 0.51 * torch.finfo(dtype).eps * exact.abs()  # half a step, and what the wider sum is off
    assert bool(((out.double() - exact).abs() <= rounding + torch.finfo(dtype).tiny).all())


def test_the_largest_numbers_of_bfloat16_and_what_is_none() -> None:
    odd = torch.tensor([3.38e38, float("inf"), float("-inf"), float("nan"), -0.0]).bfloat16()
    out = merged("weighting", Linear(), {"w": torch.zeros(5).bfloat16()}, [{"w": odd}, {"w": odd}])["w"]
    assert torch.equal(out.nan_to_num(7.0), odd.nan_to_num(7.0))


def test_a_model_that_counts_for_nothing_is_not_read() -> None:
    class Never:
        def read(self, name: str, start: int, into: Any) -> None:
            raise AssertionError("was read")

    out = Memory({"w": torch.empty(4)})
    parts = tuple(Part(i, "w", "F32") for i in range(2))
    made = Made("w", "F32", 4, (4,), None, parts, "weighting", Linear(weights=(1, 0)))
    run([made], [Memory({"w": torch.ones(4)}), Never()], out)
    assert out.tensors["w"].tolist() == [1.0] * 4


def test_rows_are_taken_from_where_they_lie_and_missing_ones_from_their_owners() -> None:
    """Labels x, y, z of the result; the first model has z, x and the second x, y; nobody's y but the second's."""
    first, second = torch.tensor([[3.0, 3.0], [1.0, 1.0]]), torch.tensor([[5.0, 5.0], [2.0, 2.0]])
    a = Part(0, "h", "F32", np.array([1, -1, 0]))
    b = Part(1, "h", "F32", np.array([0, 1, -1]))
    parts = (Part(0, "h", "F32", a.rows, (b,)), Part(1, "h", "F32", b.rows, (a,)))
    for tile in (1, 2, 5, 100):
        out = Memory({"h": torch.empty(3, 2)})
        made = Made("h", "F32", 4, (3, 2), None, parts, "weighting", Linear())
        run([made], [Memory({"h": first}), Memory({"h": second})], out, tile=tile)
        assert out.tensors["h"].tolist() == [[3.0, 3.0], [2.0, 2.0], [3.0, 3.0]]


class Counting(Memory):
    """Counts the bytes that are asked for, and the questions."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        super().__init__(tensors)
        self.bytes = self.questions = 0

    def read(self, name: str, start: int, into: Any) -> None:
        self.bytes, self.questions = self.bytes + into.nbytes, self.questions + 1
        super().read(name, start, into)


@given(st.integers(0, 10_000), st.sampled_from([(9, 4), (1, 9), (9,)]), st.sampled_from([1, 3, 7, 100]))
def test_rows_in_any_order_are_what_rows_one_by_one_are(seed: int, shape: tuple[int, ...], tile: int) -> None:
    """Of nine rows in the result each model has some; rows may also lie along the second axis. In float64 by a loop."""
    draw = np.random.default_rng(seed)
    wide = int(np.prod(shape)) // 9
    tables = [draw.standard_normal((12, wide)) for _ in range(3)]
    maps = [np.where(draw.random(9) < 0.3, -1, np.arange(9) + draw.integers(0, 4)) for _ in range(3)]
    plain = [Part(i, "w", "F64", rows) for i, rows in enumerate(maps)]
    parts = tuple(replace(p, owners=tuple(plain)) for p in plain)
    expected = np.zeros((9, wide))
    for row in range(9):
        owners = [k for k in range(3) if maps[k][row] >= 0]
        for k in range(3):
            for one in [k] if k in owners else owners:
                expected[row] += tables[one][maps[one][row]] / (3 if k in owners else 3 * len(owners))
    models = [Counting({"w": torch.from_numpy(t)}) for t in tables]
    out = Memory({"w": torch.empty(shape, dtype=torch.float64)})
    made = Made("w", "F64", 8, shape, None, parts, "weighting", Linear())
    run([made], models, out, tile=tile)
    np.testing.assert_allclose(out.tensors["w"].numpy().reshape(9, wide), expected, atol=1e-15)
    assert sum(m.bytes for m in models) == bytes_read([made], {"F64": 8})


@pytest.mark.parametrize("tile", [1, 5, 13, 1000])
def test_rows_that_pad_are_the_mean_of_the_others(tile: int) -> None:
    table = np.random.default_rng(0).standard_normal((9, 4))
    rows = np.array([8, 7, 0, 1, -1, 4, -1, -1])
    part = Part(0, "w", "F64", rows, padded=6)
    model = Memory({"w": torch.from_numpy(table)})
    out = Memory({"w": torch.empty(8, 4, dtype=torch.float64)})
    run([Made("w", "F64", 8, (8, 4), None, (part,), "weighting", Linear())], [model], out, tile=tile)
    known = np.concatenate([table[[8, 7, 0, 1]], np.zeros((1, 4)), table[[4]]])
    expected = np.concatenate([known, np.tile(known.mean(axis=0), (2, 1))])
    np.testing.assert_allclose(out.tensors["w"].numpy(), expected, atol=1e-15)


def test_rows_that_lie_together_are_read_together() -> None:
    rows = np.array([5, 6, 7, 8, 9, 0, 1, 2, 3, 4])
    model = Counting({"w": torch.arange(40.0).view(10, 4)})
    out = Memory({"w": torch.empty(10, 4)})
    made = Made("w", "F32", 4, (10, 4), None, (Part(0, "w", "F32", rows),), "weighting", Linear())
    run([made], [model], out)
    assert torch.equal(out.tensors["w"], model.tensors["w"][rows])
    assert model.questions == 2


def on_disk(folder: Path, tensors: Mapping[str, torch.Tensor]) -> Checkpoint:
    save_file(dict(tensors), folder / "model.safetensors")
    return Checkpoint({e.name: e for e in entries([folder / "model.safetensors"])})


@pytest.mark.parametrize("method", [Linear(weights=(0.3, 0.5)), TaskArithmetic(scale=0.4)])
@pytest.mark.parametrize("odd", [0.0, float("inf"), float("nan")])
def test_files_that_are_merged_in_one_call_give_the_bits_of_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Any, odd: float
) -> None:
    g = torch.Generator().manual_seed(3)
    models = [{n: torch.randn(1000, generator=g).bfloat16() for n in "abc"} for _ in range(3)]
    models[1]["b"][77] = odd
    parts = {n: [Part(i, n, "BF16") for i in range(3)] for n in "abc"}
    made = [Made(n, "BF16", 2, (1000,), p[0], tuple(p[1:]), "weighting", method) for n, p in parts.items()]
    steps = Memory({n: torch.zeros(1000).bfloat16() for n in "abc"})
    said = run(made, [Memory(m) for m in models], steps)
    with ExitStack() as stack:
        readers = []
        for number, model in enumerate(models):
            (tmp_path / str(number)).mkdir()
            readers.append(stack.enter_context(on_disk(tmp_path / str(number), model)))
        layout = laid_out([Planned(n, "BF16", (1000,)) for n in "abc"], 1 << 20)
        writer = stack.enter_context(ShardWriter(tmp_path, layout))
        monkeypatch.setattr(Checkpoint, "read", None)  # is not called
        monkeypatch.setattr(ShardWriter, "write", None)
        assert run(made, readers, writer, tile=300) == said == ({"b"} if odd else set())
        writer.complete()
    found = load_file(tmp_path / "model.safetensors")
    for name, one in steps.tensors.items():
        assert torch.equal(found[name].view(torch.int16), one.view(torch.int16))


def test_a_file_that_is_cut_while_it_is_merged_in_one_call_is_named(tmp_path: Path) -> None:
    made = Made("w", "BF16", 2, (1000,), None, (Part(0, "w", "BF16"),), "weighting", Linear())
    with on_disk(tmp_path, {"w": torch.ones(1000).bfloat16()}) as reader:
        os.truncate(tmp_path / "model.safetensors", 1000)
        (tmp_path / "out").mkdir()
        with (
            ShardWriter(tmp_path / "out", laid_out([Planned("w", "BF16", (1000,))], 1 << 20)) as writer,
            pytest.raises(Unreadable, match="became shorter while it was read"),
        ):
            run([made], [reader], writer)


def test_a_file_that_takes_no_more_ends_a_merge_in_one_call(tmp_path: Path) -> None:
    made = Made("w", "BF16", 2, (1000,), None, (Part(0, "w", "BF16"),), "weighting", Linear())

    class Closed(Memory):
        """Says that it is an open file, which nobody may write to."""

        def place(self, name: str) -> tuple[int, int]:
            return handle, 0

        def write(self, name: str, start: int, data: Any) -> None:
            raise OSError("the file takes no more")

    with on_disk(tmp_path, {"w": torch.ones(1000).bfloat16()}) as reader:
        handle = os.open(tmp_path / "model.safetensors", os.O_RDONLY)
        try:
            with pytest.raises(OSError, match="the file takes no more"):
                run([made], [reader], Closed({"w": torch.zeros(1000).bfloat16()}))
        finally:
            os.close(handle)


def test_an_error_in_one_thread_stops_all_and_reaches_the_caller() -> None:
    class Broken(Memory):
        def read(self, name: str, start: int, into: Any) -> None:
            if start > 40_000:
                raise OSError("the cable was pulled")
            super().read(name, start, into)

    model = Broken({"w": torch.ones(100_000)})
    made = Made("w", "F32", 4, (100_000,), None, (Part(0, "w", "F32"),), "weighting", Linear())
    before = threading.active_count()
    with pytest.raises(OSError, match="the cable was pulled"):
        run([made], [model], Memory({"w": torch.empty(100_000)}), threads=3, tile=1000)
    assert threading.active_count() == before


def test_progress_is_told_and_can_stop_it() -> None:
    model, told = Memory({"w": torch.ones(10_000)}), []

    def report(more: int) -> bool:
        told.append(more)
        return sum(told) < 20_000

    made = Made("w", "F32", 4, (10_000,), None, (Part(0, "w", "F32"),), "weighting", Linear())
    out = Memory({"w": torch.zeros(10_000)})
    with pytest.raises(Stopped):
        run([made], [model], out, threads=1, tile=1000, report=report)
    assert sum(told) == 20_000
    assert int(out.tensors["w"].sum()) == 5_000
    told.clear()
    run([made], [model], out, threads=1, report=lambda more: told.append(more) is None)
    assert sum(told) == 40_000


@pytest.mark.parametrize(
    ("shape", "tiles"),
    [
        ((100, 300), [(27, 300)] * 3 + [(19, 300)]),  # 27 rows are what fits into a partial sum
        ((2, 3, 5000), [(1, 5000)] * 6),
        ((3, 20_000), [(1, 20_000)] * 3),
        ((20_000,), [(1, 20_000)]),
        ((9000, 1), [(8192, 1), (808, 1)]),
        ((), [(1, 1)]),
    ],
)
def test_a_method_on_whole_rows_is_given_whole_rows(shape: tuple[int, ...], tiles: list[tuple[int, int]]) -> None:
    class OnRows:
        needs = Needs(gives=("weights",), same_base=True, whole_rows=True)

        def __call__(self, context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
            seen.append((context.offset, tuple(base.shape)))
            return tuned[0]

    seen: list[tuple[int, tuple[int, ...]]] = []
    base, one = torch.zeros(shape), torch.randn(shape)
    out = merged("merging", OnRows(), {"w": base}, [{"w": one}], tile=1 << 13, threads=2)
    assert torch.equal(out["w"], one)
    starts = itertools.accumulate((rows * wide for rows, wide in tiles), initial=0)
    assert sorted(seen) == list(zip(starts, tiles, strict=False))


def test_sums_of_doubles_are_of_doubles() -> None:
    """In float32 their sizes would not be told apart."""

    class Length:
        needs = Needs(gives=("weights",), same_base=True)
        trim = "tensor"

        def __call__(self, survey: Survey) -> Combine:
            (total,) = survey.sums([lambda context, base, tuned: tuned[0] - base])
            return lambda context, base, tuned: torch.full_like(base, float(total))

    one = torch.tensor([1.0, 2.0**-40], dtype=torch.float64)
    out = merged("trimming", Length(), {"w": torch.zeros_like(one)}, [{"w": one * (1 + 2.0**-40)}])["w"]
    assert out[0] == float((one * (1 + 2.0**-40)).sum())


def test_a_survey_looks_once_in_a_pass_at_what_it_is_asked_twice() -> None:
    """And a survey of one tensor does so in the thread that then makes it, whose memory it uses."""
    seen: list[tuple[int, int]] = []

    class Window:
        needs = Needs(gives=("weights",), same_base=True)
        trim = "tensor"

        def __call__(self, survey: Survey) -> Combine:
            def size(context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
                seen.append((threading.get_ident(), context.offset))
                return (tuned[0] - base).abs()

            outer, inner = survey.largest([size, size], [0.5, 0.1])

            def window(context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
                assert threading.get_ident() == seen[0][0]
                return outer.changes(context, base, tuned[0]) - inner.changes(context, base, tuned[0])

            return window

    one = torch.arange(1, 101.0)
    out = merged("trimming", Window(), {"w": torch.zeros(100)}, [{"w": one}], tile=40, threads=1)["w"]
    assert torch.equal(out, torch.where((one > 50) & (one <= 90), one, 0))
    assert [offset for _, offset in seen] == [0, 40, 80] * 3
    assert {thread for thread, _ in seen} == {seen[0][0]}
