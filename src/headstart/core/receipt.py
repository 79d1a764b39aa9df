"""Receipt: what was run, on what, at what cost, with what result."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

RECEIPT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure with its interval (95 %) and the number of rows behind it."""

    value: float
    low: float
    high: float
    rows: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """One step of a history; `after` is the step before it. Holds only what was measured or given in that run."""

    step: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()  # fingerprints
    seeds: tuple[int, ...] = ()
    threads: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    protocol: str = ""
    scores: Mapping[str, Measured] = field(default_factory=dict)
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)  # JSON values
    after: Receipt | None = None
    version: int = RECEIPT_VERSION

    def json(self) -> str:
        return json.dumps(dataclasses.asdict(self), sort_keys=True, ensure_ascii=False)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.json().encode()).hexdigest()[:16]

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Receipt:
        """The inverse of `dataclasses.asdict`, from JSON values.

        >>> one = Receipt(step="rank", method="logme", scores={"s": Measured(1.0, 0.5, 1.5, 9)}, seeds=(0,))
        >>> Receipt.from_dict(json.loads(one.json())) == one
        True
        """
        values = dict(fields)
        values["scores"] = {k: Measured(**v) for k, v in values.get("scores", {}).items()}
        for name in ("inputs", "seeds", "warnings"):
            values[name] = tuple(values.get(name, ()))
        values["after"] = cls.from_dict(values["after"]) if values.get("after") else None
        return cls(**values)
