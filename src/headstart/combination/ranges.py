"""Numbers of a recipe that rows are to find: ranges, such as `{search: [0, 1.5]}`, where a number may stand.

They stand in `settings`, in `parameters` and as the `scale` of a slice: alone, in lists, and in values with a filter.
An alias of YAML to a range is the same number once more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from headstart.core import Unfit

SCHEMA = {
    "type": "object",
    "description": "A number that is searched on rows, between two others; start is tried first, else the middle.",
    "properties": {
        "search": {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2},
        "start": {"type": "number"},
    },
    "required": ["search"],
    "additionalProperties": False,
}
# of settings by name; a number in a list may be a range, too
SETTINGS = {
    "type": "object",
    "additionalProperties": {"if": {"type": "object", "required": ["search"]}, "then": SCHEMA},
}
NUMBER = {"anyOf": [{"type": "number"}, SCHEMA]}


@dataclass(frozen=True, slots=True)
class Range:
    """name: where it stands in the recipe, such as `models.0.parameters.weight`."""

    name: str
    low: float
    high: float
    start: float

    def at(self, share: float) -> float:
        """The number at a share of the range, where one half is the start; so a search may begin in the middle.

        >>> one = Range("x", 0.0, 2.0, 0.5)
        >>> one.at(0.0), one.at(0.25), one.at(0.5), one.at(1.0)
        (0.0, 0.25, 0.5, 2.0)
        """
        side = self.high - self.start if share > 0.5 else self.start - self.low
        return min(self.high, max(self.low, self.start + 2 * (share - 0.5) * side))


def ranges(documents: Sequence[Mapping[str, Any]], where: str) -> tuple[Range, ...]:
    """All of some documents, each once. Raises `Unfit` for one that is none."""
    return tuple(_range(name, node, where) for name, node in _named(documents).values())


def filled(documents: Sequence[Mapping[str, Any]], values: Mapping[str, float]) -> list[dict[str, Any]]:
    """The documents with numbers in place of the ranges.

    >>> filled([{"settings": {"scale": {"search": [0, 1]}}}], {"settings.scale": 0.3})
    [{'settings': {'scale': 0.3}}]
    """
    named = _named(documents)

    def plain(node: Any) -> Any:
        if id(node) in named:
            return values[named[id(node)][0]]
        if isinstance(node, dict):
            return {k: plain(v) for k, v in node.items()}
        return [plain(v) for v in node] if isinstance(node, list) else node

    return [plain(d) for d in documents]


def _named(documents: Sequence[Mapping[str, Any]]) -> dict[int, tuple[str, dict[str, Any]]]:
    """Range by its identity, for aliases lead to one object: the name of the first place where it stands."""
    out: dict[int, tuple[str, dict[str, Any]]] = {}
    for number, document in enumerate(documents):
        before = () if len(documents) == 1 else (str(document.get("name") or number),)
        for place, node in _within(document, before, number_stands=False):
            out.setdefault(id(node), (".".join(place), node))
    return out


def _within(
    node: Any, place: tuple[str, ...], *, number_stands: bool
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    if isinstance(node, dict):
        if number_stands and "search" in node:
            yield place, node
            return
        for key, inner in node.items():
            here = (*place, str(key))
            if key in ("settings", "parameters") and isinstance(inner, dict):
                for name, value in inner.items():
                    yield from _within(value, (*here, str(name)), number_stands=True)
            else:
                yield from _within(inner, here, number_stands=number_stands or key == "scale")
    elif isinstance(node, list):
        for at, inner in enumerate(node):
            yield from _within(inner, (*place, str(at)), number_stands=number_stands)


def _range(name: str, node: Mapping[str, Any], where: str) -> Range:
    def wrong(what: str) -> Unfit:
        return Unfit(what, where=f"`{where}`, `{name}`", fix="write it like {search: [0, 1.5]} or with a start: 1.0")

    odd = next((k for k in node if k not in ("search", "start")), None)
    if odd is not None:
        raise wrong(f"`{odd}` is no key of a range")
    ends = node["search"]
    if not isinstance(ends, list) or len(ends) != 2:
        raise wrong(f"{ends!r} are not the lowest and the highest number of a range")
    try:
        low, high = (float(e) for e in ends)
        start = float(node.get("start", (low + high) / 2))
    except (TypeError, ValueError, OverflowError) as error:
        raise wrong("a range is of numbers") from error
    if not (isfinite(low) and isfinite(high) and low < high):
        raise wrong(f"the range from {low:g} to {high:g} holds no number")
    if not low <= start <= high:
        raise wrong(f"the start {start:g} does not lie between {low:g} and {high:g}")
    return Range(name, low, high, start)
