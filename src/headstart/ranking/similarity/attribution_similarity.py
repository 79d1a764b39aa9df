"""Attribution similarity: whether two tasks look at the same places of the same inputs.

Simonyan, Vedaldi and Zisserman, "Deep Inside Convolutional Networks", 2013, for the attribution; compared between
tasks as in Song, Chen, Wang, Shen and Song, "Deep Model Transferability from Attribution Maps", NeurIPS 2019.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from headstart.core import Needs, TaskSample
from headstart.numerics.attribution import places
from headstart.numerics.row_gradients import Array, cosine, task_head
from headstart.numerics.two_samples import require_one, some


@dataclass(frozen=True, kw_only=True, slots=True)
class AttributionSimilarity:
    """Cosine of |gradient × input| over the tokens or patches of rows that all tasks are shown.

    Shapes: features (N, D) and labels (N,) of at most `rows` rows to fit the head on, and at most `probe` of the
    target's rows, each one pass forward and back. An embedding has a number for each token or patch of these.
    Returns: from -1 to 1; 1 for the same task, about 0 for tasks that look at unrelated places.
    Errors: `Unfit` for rows of a single class, label set or value.

    What is explained is the output of the class that the task's own head finds likeliest, less the mean of its
    outputs; of numbers, what it says itself. The input is what the first layer makes of a token or patch. Each row's
    attributions are shares of their sum, less the share that all its places would have alike: rows count the same, and
    places that every task looks at evenly count nothing.
    """

    needs = Needs(gives=("features", "gradients"), tasks=("single_label", "multi_label", "regression"))
    claims = ("symmetric", "class_names", "halves_nearer", "sees_labels")
    cites = "arXiv:1909.11902"

    rows: int = 1000
    probe: int = 64
    # inverse of the L2 penalty of the head, C as in scikit-learn
    strength: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        require_one(self.strength, "strength", "AttributionSimilarity(strength=…)", 1.0)
        require_one(self.rows, "rows", "AttributionSimilarity(rows=…)", 1000)
        require_one(self.probe, "probe", "AttributionSimilarity(probe=…)", 64)

    def embed(self, sample: TaskSample) -> dict[str, Array]:
        head = task_head(sample, "attribution_similarity", self.rows, self.seed, self.strength)[2]
        shown, shares = sample.probe, []
        encoder = sample.encoder
        for row in some(shown.num_rows, self.probe, self.seed):
            found = np.abs(places(encoder, head, shown, int(row)))
            whole = found.sum()
            shares.append(found / whole - 1 / len(found) if whole > 0 else np.zeros(len(found)))
        return {"attribution": np.concatenate(shares)}

    def __call__(self, source: Mapping[str, Array], target: Mapping[str, Array]) -> float:
        return cosine(source["attribution"], target["attribution"])
