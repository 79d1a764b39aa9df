"""mergekit's methods: what they take, and which of ours they are.

Its formulas where they differ from the papers': per-tensor trimming that keeps `int(density * entries)`, election that
takes plus where changes cancel, means by the sum of agreeing weights, and rescaling to the sum of sizes. What is not
here is refused by name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from headstart.core import Unfit

if TYPE_CHECKING:
    from headstart.numerics.made import Kind

Base = Literal["required", "optional", "ignored"]
REQUIRED = object()


@dataclass(frozen=True, slots=True)
class Resolved:
    """Settings of one tensor: what holds for the merge, and one value a model; and its entries."""

    shared: Mapping[str, Any]
    each: Mapping[str, tuple[Any, ...]]
    size: int


@dataclass(frozen=True, slots=True)
class Spec:
    """A method of mergekit. shared, each: settings with their defaults; make: ours of the resolved ones."""

    make: Callable[[Resolved], tuple[Kind, Any]]
    base: Base = "required"
    shared: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    each: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    inputs: tuple[int, int | None] = (1, None)  # without the base


def _linear(r: Resolved) -> tuple[Kind, Any]:
    from headstart.combination.weighting.linear import Linear

    return "weighting", Linear(weights=r.each["weight"], normalize=r.shared["normalize"])


def _slerp(r: Resolved) -> tuple[Kind, Any]:
    from headstart.combination.weighting.slerp import Slerp

    return "weighting", Slerp(t=r.shared["t"])


def _nuslerp(r: Resolved) -> tuple[Kind, Any]:
    from headstart.combination.weighting.nuslerp import NuSlerp

    # with `nuslerp_row_wise` mergekit turns along the first axis: every column has an arc of its own
    per: Literal["row", "column"] = "column" if r.shared["nuslerp_row_wise"] else "row"
    return "weighting", NuSlerp(weights=r.each["weight"], per="tensor" if r.shared["nuslerp_flatten"] else per)


def _multislerp(r: Resolved) -> tuple[Kind, Any]:
    from headstart.combination.weighting.multi_slerp import MultiSlerp

    weights = r.each["weight"]
    return "weighting", MultiSlerp(weights=weights, normalize=r.shared["normalize_weights"] or len(weights) == 1)


def _karcher(r: Resolved) -> tuple[Kind, Any]:
    from headstart.combination.weighting.karcher import Karcher

    return "weighting", Karcher(steps=int(r.shared["max_iter"]), tolerance=r.shared["tol"])


def _passthrough(r: Resolved) -> tuple[Kind, Any]:
    from headstart.combination.weighting.linear import Linear

    scale = r.each["scale"][0]
    return "weighting", Linear(weights=(1.0 if scale is None else scale,), normalize=False)


def _task_arithmetic(r: Resolved) -> tuple[Kind, Any]:
    from headstart.combination.weighting.task_arithmetic import TaskArithmetic

    divided = r.shared["normalize"] and abs(sum(r.each["weight"])) >= 1e-8
    return "weighting", TaskArithmetic(scale=r.shared["lambda"], weights=r.each["weight"], normalize=divided)


def _ties(r: Resolved) -> tuple[Kind, Any]:
    from headstart.combination.trimming.ties import Ties

    densities = tuple(1.0 if d >= 1 else max(1, int(d * r.size)) / r.size for d in r.each["density"])
    average: Literal["weight", "sum"] = "weight" if r.shared["normalize"] else "sum"
    made = Ties(
        density=densities,
        scale=r.shared["lambda"],
        weights=tuple(w if d > 0 else 0.0 for w, d in zip(r.each["weight"], r.each["density"], strict=True)),
        trim="tensor",
        undecided="plus",
        average=average,
        rescale=_rescale(r),
    )
    return "trimming", made


def _dare(elect: bool) -> Callable[[Resolved], tuple[Kind, Any]]:
    def make(r: Resolved) -> tuple[Kind, Any]:
        from headstart.combination.trimming.dare import Dare

        return "trimming", Dare(
            density=r.each["density"], scale=r.shared["lambda"], weights=r.each["weight"], consensus="elect" if elect
            else "sum", average="weight" if r.shared["normalize"] else "sum", rescale=_rescale(r),
            normalize=r.shared["normalize"],
        )  # fmt: skip

    return make


def _della(elect: bool) -> Callable[[Resolved], tuple[Kind, Any]]:
    def make(r: Resolved) -> tuple[Kind, Any]:
        from headstart.combination.trimming.della import Della

        densities = tuple(min(d, 1.0) for d in r.each["density"])
        if set(densities) == {1.0}:  # nothing is ranked
            return _dare(elect)(dataclasses.replace(r, each={**r.each, "density": densities}))
        return "trimming", Della(
            density=densities, epsilon=r.each["epsilon"], scale=r.shared["lambda"] / (1.0 if elect else _divisor(r)),
            weights=r.each["weight"], consensus="elect" if elect else "sum", average="weight" if r.shared["normalize"]
            else "sum", rescale=_rescale(r),
        )  # fmt: skip

    return make


def _breadcrumbs(elect: bool) -> Callable[[Resolved], tuple[Kind, Any]]:
    def make(r: Resolved) -> tuple[Kind, Any]:
        from headstart.combination.trimming.breadcrumbs import Breadcrumbs

        kept, cut = [], []
        for density, gamma in zip(r.each["density"], r.each["gamma"], strict=True):
            count = r.size if density >= 1 else int(density * r.size)
            bottom = max(0, r.size - count - int(gamma * r.size)) if density < 1 else 0
            kept.append(count / r.size)
            cut.append((r.size - bottom - count) / r.size)
        if not all(kept):
            raise Unfit(
                f"a density of {min(r.each['density']):g} keeps nothing of {r.size} entries",
                where="recipe, `density`",
                fix="choose a larger density",
            )
        return "trimming", Breadcrumbs(
            density=tuple(kept), outliers=tuple(cut), scale=r.shared["lambda"] / (1.0 if elect else _divisor(r)),
            weights=r.each["weight"], consensus="elect" if elect else "sum",
            average="weight" if r.shared["normalize"] else "sum", rescale=_rescale(r),
        )  # fmt: skip

    return make


def _sce(r: Resolved) -> tuple[Kind, Any]:
    from headstart.combination.trimming.sce import Sce

    return "trimming", Sce(density=r.shared["select_topk"])


def _model_stock(r: Resolved) -> tuple[Kind, Any]:
    from headstart.combination.weighting.model_stock import ModelStock

    return "weighting", ModelStock(per="row" if r.shared["filter_wise"] else "tensor", beyond=True)


def _nearswap(r: Resolved) -> tuple[Kind, Any]:
    from headstart.combination.merging.nearswap import NearSwap

    return "merging", NearSwap(t=r.shared["t"])


def _arcee_fusion(_: Resolved) -> tuple[Kind, Any]:
    from headstart.combination.merging.arcee_fusion import ArceeFusion

    return "merging", ArceeFusion()


def _ram(r: Resolved) -> tuple[Kind, Any]:
    from headstart.combination.merging.ram import Ram

    return "merging", Ram(epsilon=r.shared["epsilon"])


def _ramplus(r: Resolved) -> tuple[Kind, Any]:
    from headstart.combination.trimming.ramplus import RamPlus

    return "trimming", RamPlus(epsilon=r.shared["epsilon"], r=r.shared["r"], alpha=r.shared["alpha"])


def _vectors(*, normalize: bool, rescale: bool) -> dict[str, Any]:
    return {"lambda": 1.0, "normalize": normalize, "rescale": rescale, "int8_mask": False}


WEIGHTS = {"weight": REQUIRED, "density": 1.0}
# `int8_mask` and `eps` are read and without effect here: they change no result
SPECS: dict[str, Spec] = {
    "linear": Spec(_linear, "ignored", {"normalize": True}, {"weight": REQUIRED}),
    "slerp": Spec(_slerp, "ignored", {"t": REQUIRED}, {}, (2, 2)),
    "nuslerp": Spec(
        _nuslerp, "optional", {"nuslerp_row_wise": False, "nuslerp_flatten": True}, {"weight": REQUIRED}, (2, 2)
    ),
    "multislerp": Spec(_multislerp, "optional", {"normalize_weights": True, "eps": 1e-8}, {"weight": REQUIRED}),
    "karcher": Spec(_karcher, "ignored", {"max_iter": 10.0, "tol": 1e-5}),
    "passthrough": Spec(_passthrough, "ignored", {}, {"scale": None}, (1, 1)),
    "task_arithmetic": Spec(_task_arithmetic, "required", _vectors(normalize=False, rescale=False), WEIGHTS),
    "ties": Spec(_ties, "required", _vectors(normalize=True, rescale=False), WEIGHTS),
    "dare_linear": Spec(_dare(False), "required", _vectors(normalize=False, rescale=True), WEIGHTS),
    "dare_ties": Spec(_dare(True), "required", _vectors(normalize=False, rescale=True), WEIGHTS),
    "della_linear": Spec(
        _della(False), "required", _vectors(normalize=False, rescale=True), {**WEIGHTS, "epsilon": 0.15}
    ),
    "della": Spec(_della(True), "required", _vectors(normalize=True, rescale=True), {**WEIGHTS, "epsilon": 0.15}),
    "breadcrumbs": Spec(
        _breadcrumbs(False), "required", _vectors(normalize=False, rescale=False), {**WEIGHTS, "gamma": 0.01}
    ),
    "breadcrumbs_ties": Spec(
        _breadcrumbs(True), "required", _vectors(normalize=False, rescale=False), {**WEIGHTS, "gamma": 0.01}
    ),
    "sce": Spec(_sce, "required", {"select_topk": 1.0, "int8_mask": False}),
    "model_stock": Spec(_model_stock, "required", {"filter_wise": False}, {}, (2, None)),
    "nearswap": Spec(_nearswap, "required", {"t": REQUIRED}, {}, (1, 1)),
    "arcee_fusion": Spec(_arcee_fusion, "required", {}, {}, (1, 1)),
    "ram": Spec(_ram, "required", {"epsilon": 1e-5}),
    "ramplus_tl": Spec(_ramplus, "required", {"epsilon": 1e-5, "r": 0.1, "alpha": 0.2}),
}


def _rescale(r: Resolved) -> Literal["l1", "none"]:
    return "l1" if r.shared["rescale"] else "none"


def _divisor(r: Resolved) -> float:
    """Of a sum of changes, where `normalize` makes it a mean."""
    total = float(sum(r.each["weight"]))
    return total if r.shared["normalize"] and abs(total) >= 1e-8 else 1.0
