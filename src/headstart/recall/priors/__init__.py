"""Priors: which settings a search on a new target should try first. A file here is a method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from headstart import catalogue
from headstart.core import Advising, Known, Refused, Target, Unfit
from headstart.inventory import Inventory

if TYPE_CHECKING:
    from headstart.core.kinds import Array


def prior(
    target: Target,
    space: Mapping[str, Sequence[Any]],
    route: str,
    method: str | Advising = "bank_prior",
    *,
    inventory: Inventory,
    known: Known | None = None,
) -> dict[str, Array]:
    """Weights of the values of each setting of a route, in the order of the space, from the bank's own past trials.

    known: of the target; without it how alike it is to past targets, by signatures. Raises `Refused` where the bank has
    no trial of the route on another target, and `Unfit` for a space without values.
    """
    empty = [name for name, values in space.items() if not len(values)]
    if empty or not space:
        raise Unfit(
            f"`{empty[0]}` may take no value" if empty else "the space has no setting",
            where="prior(space=…)",
            fix='write it like {"rank": (4, 8, 16)}',
        )
    past = inventory.past_trials(target, catalogue.entry("adaptation.routes", route).name)
    if not past.targets:
        raise Refused(
            f"there is no trial of `{route}` on another target like `{target.name}`",
            where=inventory.where,
            fix="solve targets of the same task, inputs and metric first",
        )
    advice: Advising = catalogue.make("recall.priors", method)
    return advice(past, space, inventory.known(past.targets, target) if known is None else known)
