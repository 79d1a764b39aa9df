"""Masks of the largest values, against a stable sort."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headstart.numerics.masks import largest


@pytest.mark.parametrize("seed", range(3))
def test_largest_against_a_stable_sort(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    values = {n: torch.randint(-4, 5, s, generator=g).float() for n, s in {"a": (5, 4), "b": (7,), "c": ()}.items()}
    whole = np.concatenate([v.numpy().ravel() for v in values.values()])
    order = np.argsort(-whole, kind="stable")
    for count in range(len(whole) + 1):
        found = largest(values, count)
        assert all(found[n].shape == v.shape for n, v in values.items())
        mask = np.concatenate([v.numpy().ravel() for v in found.values()])
        assert np.flatnonzero(mask).tolist() == sorted(order[:count].tolist())
