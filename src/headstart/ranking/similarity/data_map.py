"""Data maps: whether two tasks find the same rows easy, hard and unsure while they are learned.

Swayamdipta, Schwartz, Lourie, Wang, Hajishirzi, Smith and Choi, "Dataset Cartography", EMNLP 2020; tasks grouped by
their maps as in Sherif, Abid, Elattar and ElHelw, "STG-MTL: Scalable Task Grouping for Multi-Task Learning Using Data
Maps", 2023.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from headstart.core import Needs, TaskSample, Unfit
from headstart.numerics.data_maps import Array, data_map, on_shared
from headstart.numerics.inner import first_seen
from headstart.numerics.row_gradients import cosine
from headstart.numerics.two_samples import require_one


@dataclass(frozen=True, kw_only=True, slots=True)
class DataMap:
    """Cosine of two tasks' data maps, about their means, on the inputs that both tasks have.

    Shapes: features (N, D) and labels (N,); `epochs` passes over them; an embedding has two numbers a row.
    Returns: from -1 to 1; 1 for the same task, about 0 for maps that have nothing to do with each other.
    Errors: `Unfit` for tasks that share fewer than `least` inputs, or rows of a single class.

    A map holds, for each row, the mean and the deviation over epochs of the probability of its true class, under a
    linear head that learns on the encoder's features by plain gradient steps on all rows. The paper trains all tasks
    in one network. Only other labels of the same inputs can be compared so; `ranking.similarity.group` puts several
    such tasks into groups.
    """

    needs = Needs(gives=("features",), tasks=("single_label",))
    claims = ("symmetric", "class_names", "row_order", "sees_labels", "only_shared_rows")
    cites = "arXiv:2307.03374"

    epochs: int = 30
    # inputs that both tasks must have
    least: int = 10

    def __post_init__(self) -> None:
        require_one(self.least, "least", "DataMap(least=…)", 10)
        if self.epochs < 2:
            raise Unfit(
                f"epochs is {self.epochs}, and a deviation needs two visits",
                where="DataMap(epochs=…)",
                fix="use 30, the default",
            )

    def embed(self, sample: TaskSample) -> dict[str, Array]:
        if sample.labels is None:
            raise Unfit("a data set without labels", where="data_map", fix="leave it out")
        labels = first_seen(sample.labels)
        if labels.max(initial=0) == 0:
            raise Unfit(f"{len(labels)} rows of one class", where="data_map", fix="give rows of two classes or more")
        mean, spread = data_map(sample.features, labels, self.epochs)
        return {"content": np.array(sample.content), "mean": mean, "spread": spread}

    def __call__(self, source: Mapping[str, Array], target: Mapping[str, Array]) -> float:
        a, b = on_shared((source, target), self.least)
        return cosine(a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True))
