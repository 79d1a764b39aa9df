"""Metrics by name, with their direction; the values are computed in `numerics.metrics`."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

from .errors import Unfit
from .needs import TaskType


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """One figure of merit. probabilities: it reads more than the largest column of the predictions."""

    name: str
    title: str
    tasks: tuple[TaskType, ...]
    higher_is_better: bool = True
    probabilities: bool = False

    @property
    def sign(self) -> int:
        """+1 where higher is better, -1 where lower is; gains are multiplied by it."""
        return 1 if self.higher_is_better else -1


METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        Metric(name="macro_f1", title="macro-F1", tasks=("single_label", "multi_label")),
        Metric(name="accuracy", title="accuracy", tasks=("single_label",)),
        Metric(name="balanced_accuracy", title="balanced accuracy", tasks=("single_label",)),
        Metric(name="micro_f1", title="micro-F1", tasks=("single_label", "multi_label")),
        Metric(name="log_loss", title="log loss", tasks=("single_label",), higher_is_better=False, probabilities=True),
        Metric(name="auroc", title="AUROC", tasks=("single_label",), probabilities=True),
        Metric(name="span_f1", title="span F1", tasks=("tagging",)),
        Metric(name="rmse", title="RMSE", tasks=("regression",), higher_is_better=False),
        Metric(name="mae", title="mean absolute error", tasks=("regression",), higher_is_better=False),
        Metric(name="r2", title="R²", tasks=("regression",)),
        Metric(name="spearman", title="Spearman correlation", tasks=("regression",)),
    )
}

DEFAULT_METRIC: dict[TaskType, str] = {
    "single_label": "macro_f1",
    "multi_label": "micro_f1",
    "tagging": "span_f1",
    "regression": "rmse",
}


def metric_for(task_type: TaskType, name: str | None = None) -> Metric:
    """The metric of that name, or the task's default one. Raises `Unfit` for an unknown name or a wrong task type.

    >>> metric_for("regression").sign
    -1
    """
    wanted = (name or DEFAULT_METRIC[task_type]).lower().replace("-", "_").replace(" ", "_")
    fitting = [m.name for m in METRICS.values() if task_type in m.tasks]
    if wanted not in METRICS:
        near = get_close_matches(wanted, METRICS, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"use one of: {', '.join(fitting)}"
        raise Unfit(f"no metric is called `{name}`", where="the metric", fix=hint)
    if task_type not in METRICS[wanted].tasks:
        raise Unfit(
            f"`{wanted}` does not measure a {task_type.replace('_', '-')} task",
            where="the metric",
            fix=f"use one of: {', '.join(fitting)}",
        )
    return METRICS[wanted]
