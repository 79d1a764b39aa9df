"""Where the changes of several models disagree about a sign: elect one, and average those that agree.

The election is that of TIES (Yadav et al., "TIES-Merging: Resolving Interference When Merging Models", NeurIPS 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

Average = Literal["count", "weight", "sum"]


def elected(changes: Sequence[torch.Tensor], undecided: float = 0.0) -> torch.Tensor:
    """Sign (…) of the sum of the changes; `undecided` where they cancel.

    >>> elected([torch.tensor([4.0, -1.0, 2.0]), torch.tensor([-2.0, -3.0, -2.0])]).tolist()
    [1.0, -1.0, 0.0]
    """
    total = torch.zeros_like(changes[0])
    for change in changes:
        total += change
    sign = total.sign_()
    return sign if undecided == 0 else torch.where(sign == 0, undecided, sign)


def agreeing(
    changes: Sequence[torch.Tensor], sign: torch.Tensor, weights: Sequence[float], average: Average = "count"
) -> torch.Tensor:
    """Mean (…) of those weighted changes that have the elected sign; 0 where there is none.

    changes: already times their weights. average: `count` divides by their number, `weight` by the sum of their
    weights, `sum` by nothing.
    """
    total, divisor = torch.zeros_like(sign), torch.zeros_like(sign)
    for change, weight in zip(changes, weights, strict=True):
        agrees = change * sign > 0
        total += torch.where(agrees, change, 0)
        divisor += agrees * (weight if average == "weight" else 1.0)
    return total if average == "sum" else total / torch.where(divisor == 0, 1, divisor)
