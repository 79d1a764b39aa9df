"""Evolutionary merging: the settings of any merge, found by evolution on labelled rows.

Akiba, Shing, Tang, Sun and Ha, "Evolutionary Optimization of Model Merging Recipes", Nature Machine Intelligence 2025.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headstart.core import Learned, MergeView, Needs, Steps, Unfit
from headstart.numerics.blind_search import minimised
from headstart.numerics.learning import mean_loss


@dataclass(frozen=True, kw_only=True, slots=True)
class Evolve:
    """Search the settings of another merge by CMA-ES, by the loss on labelled rows.

    Shapes: any that the other merge takes; one model is alive, without gradients; a merge in memory and a pass over the
    rows for each of `trials`.
    Returns: the other merge with the best settings that were tried; the middle of their ranges is tried first.
    Errors: `Unfit` for a range that is empty, or named twice, and for no groups; what the other merge raises.

    All tensors have the same settings, or with `groups` those of their layer's group: layers are cut by depth into so
    many, and what lies outside layers belongs to the first. More groups want more trials. This is the paper's search in
    parameter space; its search for another order of layers is not here.
    """

    needs = Needs(
        gives=("weights", "predictions"), tasks=("single_label", "multi_label", "regression"), same_base=True,
        extras=(("cmaes", "search"), ("optuna", "search")),
    )  # fmt: skip
    claims = ("objective_falls",)
    cites = "arXiv:2403.13187"

    merge: str = "task_arithmetic"
    # (setting, lowest, highest); `weights` stands for one number a model
    search: tuple[tuple[str, float, float], ...] = (("weights", 0.0, 1.0), ("scale", 0.1, 1.5))
    groups: int = 1  # of layers, by depth, each with settings of its own
    trials: int = 60
    seed: int = 0

    def __post_init__(self) -> None:
        names = [name for name, _, _ in self.search]
        if not names or len(set(names)) < len(names) or any(not low < high for _, low, high in self.search):
            raise Unfit(
                f"the ranges {self.search} are not one (setting, lowest, highest) for each setting",
                where="Evolve(search=…)",
                fix='use (("weights", 0.0, 1.0), ("scale", 0.1, 1.5))',
            )
        if self.groups < 1:
            raise Unfit(f"{self.groups} groups cannot be", where="Evolve(groups=…)", fix="use 1 or more")

    def __call__(self, view: MergeView, steps: Steps) -> Learned:
        space = {
            f"{group} {name} {number}": (low, high)
            for group in range(self.groups)
            for name, low, high in self.search
            for number in range(len(view.models) if name == "weights" else 1)
        }
        start = {key: (low + high) / 2 for key, (low, high) in space.items()}
        trials = self.trials if steps.horizon is None else steps.horizon

        def cost(point: dict[str, float]) -> float:
            return mean_loss(view, view.made(self.merge, self._settings(point, 0), self._own(view, point)))

        best, curve = minimised(cost, space, start, trials, self.seed)
        return Learned(method=self.merge, settings=self._settings(best, 0), own=self._own(view, best), curve=curve)

    def _settings(self, point: dict[str, float], group: int) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for name, _, _ in self.search:
            values = tuple(v for k, v in point.items() if k.startswith(f"{group} {name} "))
            out[name] = values if name == "weights" else values[0]
        return out

    def _own(self, view: MergeView, point: dict[str, float]) -> dict[str, dict[str, Any]]:
        """Of tensors that are not in the first group."""
        each = [self._settings(point, group) for group in range(self.groups)]
        at = {n: min(int((view.depth(n) or 0.0) * self.groups), self.groups - 1) for n in view.tensors}
        return {n: each[group] for n, group in at.items() if group}
