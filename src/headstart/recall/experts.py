"""Experts recalled by what they were trained on: new inputs vote for the nearest instances that the bank keeps.

Jang, Kim, Ye, Kim, Logeswaran, Lee, Lee and Seo, "Exploring the Benefits of Training Expert Language Models over
Instruction Tuning", ICML 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart import catalogue
from headstart.core import Budget, Needs, Receipt, Refused, Rows, Source, Target, Unfit
from headstart.inventory import Inventory

if TYPE_CHECKING:
    import numpy as np

    from headstart.execution.parts import Part
    from headstart.execution.run import Run
    from headstart.numerics.votes import Votes

    Array = np.ndarray[Any, Any]

ENCODER = Needs(gives=("features",), labels=False)
INPUTS = 32


def recall_experts(
    target: Target,
    sources: Sequence[Source] | None,
    budget: Budget,
    *,
    encoder: Source,
    inventory: Inventory,
    inputs: int = INPUTS,
    run: Run | None = None,
) -> tuple[Source, ...]:
    """The sources, best first by the votes of the target's inputs, each with a receipt; those without instances last.

    Each of at most so many inputs, drawn by their hashes, votes for the source that holds the instance with the largest
    cosine to it; see `numerics.votes`. No label is read, and no source is opened but the encoder. sources: None for all
    on the shelf that have instances by this encoder. `receipt.facts`: `share` of the votes, `nearest` the median
    cosine, and `novel`, whether the inputs are like nothing that is kept. Raises `Refused` where the bank has instances
    of fewer than two of these sources.
    """
    from headstart.execution.alone import lone_part
    from headstart.inventory.readings import distinct
    from headstart.numerics.votes import votes

    if inputs < 1:
        raise Unfit(f"{inputs} inputs", where="recall_experts(inputs=…)", fix=f"use {INPUTS}, the default")
    if reason := catalogue.refusal(ENCODER, (encoder,), target):
        raise Refused(f"`{encoder.name}` {reason}", where="the recall of experts", fix="name another encoder")
    given = list(inventory.sources(target.modality) if sources is None else sources)
    held = inventory.instances(encoder, given)
    if len(held) < 2:
        raise Refused(
            f"one source has instances by `{encoder.name}`, and a vote is among several",
            where="the recall of experts",
            fix="keep those of others with `headstart inventory sample`",
        )
    if sources is None:
        given = [source for source in given if source.identity in held]
    rows = distinct(target.labelled if len(target.labelled) else target.unlabelled, "headstart inputs", inputs)
    with lone_part(target, budget, run) as (here, part):
        begun = here.meter.session()
        found = votes(list(held.values()), _encoded(part, encoder, rows, here))
        seconds = here.meter.session() - begun
    shares = dict(zip(held, found.shares.tolist(), strict=True))
    order = sorted(given, key=lambda source: -shares.get(source.identity, -1.0))
    return tuple(s.after(_receipt(s, shares, found, encoder, target, len(rows), seconds)) for s in order)


def _encoded(part: Part, encoder: Source, rows: Rows, run: Run) -> Array:
    from headstart.execution.parts import dump_rows
    from headstart.execution.specs import Job, source_to_dict
    from headstart.execution.views import Pool, opener
    from headstart.io.cache import Cache

    folder = dump_rows(run, rows, "inputs-of-experts")
    spec = {
        "source": source_to_dict(encoder),
        "target": part.root,
        "rows": f"test:{folder}",
        "start": 0,
        "stop": len(rows),
        "cache": part.cache,
    }
    (outcome,) = run.do([Job("features", f"features of {encoder.name}", spec)], "features")
    if not outcome.ok:
        raise outcome.problem("the inputs were read", f"source `{encoder.name}`")
    with opener(encoder) as open_:
        assert open_ is not None
        return Pool.of_rows(open_, rows, Cache(Path(part.cache))).take(rows.ids)


def _receipt(
    source: Source,
    shares: dict[str, float],
    found: Votes,
    encoder: Source,
    target: Target,
    inputs: int,
    seconds: float,
) -> Receipt:
    import numpy as np

    novel = "the inputs are like nothing that the experts were trained on; their order says little"
    return Receipt(
        step="recall_experts",
        method="instances",
        inputs=(source.identity, target.fingerprint, encoder.identity),
        seconds=seconds,
        warnings=(novel,) if found.novel else (),
        facts={
            "share": shares.get(source.identity),
            "inputs": inputs,
            "nearest": float(np.median(found.nearest)),
            "usual": found.usual,
            "novel": found.novel,
        },
    )
