"""Twin-Merging: a shared model, and of each model what it knows beyond that, added to inputs of its task.

Lu, Fan, Wei, Qu, Chen and Cheng, "Twin-Merging: Dynamic Integration of Modular Expertise in Model Merging",
NeurIPS 2024.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from headstart.core import Learned, MergeView, Needs, Routed, Steps, Unfit
from headstart.numerics.delta import Dense, Form, smaller_of, sparse
from headstart.numerics.routers import routed


@dataclass(frozen=True, kw_only=True, slots=True)
class TwinMerge:
    """Keep of each model, compressed, what the shared merge has not, and learn from rows which input needs whose.

    Shapes: matrices (out, in) as two factors of rank r, K * r * (out + in) numbers; one model and one change alive.
    Returns: any merge, what each model differs from it, and a router on the mean last state of the shared model.
    Errors: `Unfit` for settings out of range.

    An input gets the one likeliest expert, as it also needs that task's head; `top` above 1 mixes several by the
    router's softmax, as in the paper, which costs a merge of weights for every row. Vectors are kept whole. Inputs of a
    task that nobody has learned go to an expert all the same.
    """

    needs = Needs(gives=("weights", "features"), tasks=("single_label",), labels=False, same_base=True, fewest=2)
    claims = ("nearer_than_shared", "tells_tasks_apart", "source_order", "copies", "one_model", "scale_zero")
    cites = "arXiv:2406.15479"

    merge: str = "task_arithmetic"
    settings: tuple[tuple[str, Any], ...] = (("scale", 0.3),)  # of that merge
    keep: float = 0.1  # of a matrix: share of its singular values, or of its entries
    by: Literal["rank", "size"] = "rank"
    hidden: int = 128  # width of the router's layer between; 0 for none
    steps: int = 300
    learning_rate: float = 1e-2
    top: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.keep <= 1 or self.by not in ("rank", "size") or min(self.hidden, self.steps, self.top - 1) < 0:
            raise Unfit(
                f"keep={self.keep}, by={self.by}, hidden={self.hidden}, steps={self.steps}, top={self.top} cannot be",
                where="TwinMerge(…)",
                fix="use keep from 0 to 1, by=rank or size, hidden and steps from 0, top from 1",
            )

    def __call__(self, view: MergeView, steps: Steps) -> Routed:
        shared = view.made(self.merge, dict(self.settings))
        experts: list[dict[str, Form]] = [{} for _ in view.models]
        for name in view.tensors:
            base = view.base(name)
            for expert, change in zip(experts, view.changes(name), strict=True):
                kept = self._compressed(base + change - shared[name])
                if kept is not None:
                    expert[name] = kept
        router, curve, facts = routed(
            view, shared, hidden=self.hidden, steps=self.steps if steps.horizon is None else steps.horizon,
            learning_rate=self.learning_rate, top=min(self.top, len(view.models)), seed=self.seed,
        )  # fmt: skip
        learned = Learned(method=self.merge, settings=dict(self.settings), curve=tuple(curve), facts={"router": facts})
        return Routed(learned, experts, router=router)

    def _compressed(self, change: torch.Tensor) -> Form | None:
        """None where nothing is kept."""
        if not self.keep or not bool(change.any()):
            return None
        if self.by == "rank":
            return smaller_of(change, self.keep)
        return sparse(change, self.keep) if self.keep < 1 and change.dim() > 1 else Dense(change)
