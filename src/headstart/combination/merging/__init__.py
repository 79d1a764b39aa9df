"""Merging: several fine-tunes of one base become one set of weights. A file here is a method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from headstart import catalogue
from headstart.core import Merging, Refused

if TYPE_CHECKING:
    from headstart.numerics.artifacts import Model


def merge(models: Sequence[Model], method: str | Merging = "uniform_soup") -> Model:
    """One model of the weights and heads of several fine-tunes of one source; the inputs stay as they are."""
    from headstart.numerics.soups import merged_models

    chosen: Merging = catalogue.make("combination.merging", method)
    if not models:
        raise Refused("there is nothing to merge", where="merge", fix="give at least one fine-tuned model")
    return merged_models(models, chosen)
