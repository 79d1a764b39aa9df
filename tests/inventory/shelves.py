"""Small sources and targets, made in memory, for the tests of the bank."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from headstart.core import Columns, Folds, Rows, Seal, Source, Target, Task, metric_for
from headstart.numerics.hashing import row_key


def a_source(name: str, **fields: object) -> Source:
    """A source whose fingerprints follow from its name."""
    given: dict[str, object] = {
        "kind": "checkpoint",
        "where": f"/nowhere/{name}",
        "weights": row_key(f"weights {name}") * 2,
        "identity": row_key(f"identity {name}") * 2,
        "modality": "text",
        "gives": ("features", "gradients", "weights"),
    }
    return Source(name=name, **{**given, **fields})  # type: ignore[arg-type]  # fields vary with the test


def rows(texts: list[str]) -> Rows:
    keys = tuple(row_key(t) for t in texts)
    labels = np.arange(len(texts)) % 2
    return Rows(keys, keys, keys, pa.table({"text": texts}), labels)


def a_target(name: str = "tickets", *, train: list[str], test: list[str], protocol: str = "holdout") -> Target:
    labelled, sealed = rows(train), rows(test)
    return Target(
        name=name,
        task=Task(type="single_label", classes=("a", "b")),
        modality="text",
        metric=metric_for("single_label"),
        columns=Columns(label="label", text=("text",)),
        labelled=labelled,
        unlabelled=rows([]),
        folds=Folds(kind="cv", k=2, of=(tuple(i % 2 for i in range(len(train))),)),
        protocol=protocol,  # type: ignore[arg-type]  # one of the four names
        seal=Seal(lambda: sealed, ids=sealed.ids, content=sealed.content, groups=sealed.groups),
        fingerprint=row_key(f"target {name}"),
    )
