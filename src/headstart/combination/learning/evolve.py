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
    Errors: `Unfit` for a range that is empty, or named twice; what the other merge raises.
    """

    needs = Needs(gives=("weights", "predictions"), same_base=True, extras=(("cmaes", "search"), ("optuna", "search")))
    claims = ("objective_falls",)
    cites = "arXiv:2403.13187"

    merge: str = "task_arithmetic"
    # (setting, lowest, highest); `weights` stands for one number a model
    search: tuple[tuple[str, float, float], ...] = (("weights", 0.0, 1.0), ("scale", 0.1, 1.5))
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

    def __call__(self, view: MergeView, steps: Steps) -> Learned:
        space = {
            key: (low, high)
            for name, low, high in self.search
            for key in ([f"weights {m}" for m in range(len(view.models))] if name == "weights" else [name])
        }
        start = {key: (low + high) / 2 for key, (low, high) in space.items()}
        trials = self.trials if steps.horizon is None else steps.horizon

        def cost(point: dict[str, float]) -> float:
            return mean_loss(view, view.made(self.merge, _settings(point)))

        best, curve = minimised(cost, space, start, trials, self.seed)
        return Learned(method=self.merge, settings=_settings(best), curve=curve)


def _settings(point: dict[str, float]) -> dict[str, Any]:
    plain: dict[str, Any] = {k: v for k, v in point.items() if not k.startswith("weights ")}
    weights = tuple(v for k, v in point.items() if k.startswith("weights "))
    return {**plain, "weights": weights} if weights else plain
