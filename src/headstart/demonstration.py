"""The demonstration: an embedded task and an embedded shelf, solved offline in a few minutes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from headstart.core import Budget, Result, Target

MINUTES = 4.0  # of two cores; what is left of them is not used
LABELS = 5  # training rows of each class
STARTER = Path(__file__).parent / "starter"
BANK = "demo-bank.db"  # no other command gives a file this name, so `overwrite` may begin it again


def demonstrate(
    out: str | Path,
    *,
    minutes: float | None = None,
    resume: bool = False,
    overwrite: bool = False,
    seed: int = 0,
    started: float | None = None,
    show: Literal["auto", "plain", "none"] = "auto",
    asked: Mapping[str, Any] | None = None,
) -> Result:
    """Solve scikit-learn's digits, five labels a class, with the starter shelf, into the folder `out`.

    The bank lies in `out` as well, and the sources are read where they are, in the package. minutes: 4 without it.
    seed: of the rows that are labelled, of splits and of trials. Raises `Refused` where `out` holds a result or a run.
    """
    began = time.monotonic() if started is None else started
    from headstart import flow, outcome
    from headstart.inventory import Inventory

    folder = Path(out)
    outcome.refuse_folder(folder, resume=resume, overwrite=overwrite)
    if overwrite and not resume:
        for ending in ("", "-wal", "-shm"):
            (folder / f"{BANK}{ending}").unlink(missing_ok=True)
    target = digits(seed)
    with Inventory(folder / BANK) as inventory:
        sources, failed = inventory.add(STARTER)
        return flow.solve(
            target,
            inventory,
            Budget(minutes=MINUTES if minutes is None else minutes),
            out=folder,
            sources=sources,
            failed=failed,
            seed=seed,
            resume=resume,
            overwrite=overwrite,
            started=began,
            show=show,
            asked=asked,
        )


def digits(seed: int = 0) -> Target:
    """Handwritten digits, 8 × 8 pixels: five drawn rows of each class to train on, all other 1,747 rows as the test.

    They come with scikit-learn: the test part of "Optical Recognition of Handwritten Digits" of the UCI repository.
    """
    import numpy as np
    from sklearn.datasets import load_digits

    from headstart.inspection import read_target

    held = load_digits()
    images = np.rint(held.images * (255 / 16)).astype(np.uint8)  # 17 levels of ink
    draw = np.random.default_rng(seed)
    rows = [draw.choice(np.flatnonzero(held.target == c), LABELS, replace=False) for c in range(10)]
    train = np.sort(np.concatenate(rows))
    test = np.setdiff1d(np.arange(len(images)), train)
    return read_target(
        (images[train], held.target[train]),
        test=(images[test], held.target[test]),
        task="single_label",
        metric="accuracy",
        name="digits",
        seed=seed,
    )
