"""Source: one learned thing on the shelf; a description, never the tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .needs import Gives, Modality
from .receipt import Receipt


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One learned thing: where it lies, what it is, what it gives.

    kind: `checkpoint` (a transformers folder), `sentence_transformer`, or `result` (a saved Result).
    where: the folder's absolute path. origin: what the user named (`hub:org/name@revision`, or the path).
    weights: fingerprint of the tensors alone; deltas refer to it. identity: weights + everything that changes
    outputs (configuration, tokenizer or preprocessor, pooling); caches, scores and records refer to it.
    facts: JSON values that were read, not guessed: architecture, width, parameters, bytes, layers, max_length,
    pooling, normalise, labels (of a stored head), preprocessing.
    trained_on: keyed hashes of the rows it was trained on; None is unknown, not clean.
    """

    name: str
    kind: str
    where: str
    origin: str = ""
    weights: str
    identity: str
    modality: Modality
    gives: tuple[Gives, ...]
    base: str | None = None
    licence: str | None = None
    lineage: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    trained_on: frozenset[str] | None = None
    receipt: Receipt | None = None

    @property
    def id(self) -> str:
        """Twelve characters of the identity: what people type, and what `--json` prints."""
        return self.identity[:12]

    def after(self, receipt: Receipt) -> Source:
        """The same source with one more step in its history."""
        return replace(self, receipt=replace(receipt, after=self.receipt))


def called(sources: Iterable[Source]) -> dict[str, str]:
    """By identity, what to call each where all are shown together: its name, and its id where others have that name."""
    known = {source.identity: source for source in sources}
    names = Counter(source.name for source in known.values())
    return {one: s.name if names[s.name] == 1 else f"{s.name} ({s.id})" for one, s in known.items()}
