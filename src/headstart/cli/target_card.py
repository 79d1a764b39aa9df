"""The target card as a person reads it: a few facts in sentences, what was noticed, then the classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from headstart.cli.printing import cell, draw, emit, facts, line, table
from headstart.core import METRICS
from headstart.numerics.plain_text import plain

if TYPE_CHECKING:
    from rich.table import Table

SHOWN = 20  # classes, before the rest is only counted
EXAMPLES = 3  # of conflicting labels
BAR = 30  # characters of the longest bar
LONG = 60  # characters of one input or name
EIGHTHS = " ▏▎▍▌▋▊▉█"


def card(found: Mapping[str, Any], *, machine: bool) -> None:
    """The target card."""
    if machine:
        emit(found)
        return
    line(f"{found['name']}: {_task(found)}, measured by {_metric(found)}")
    draw("", facts(_facts(found)))
    if found["classes"]:
        draw("", _classes(found["classes"]))


def _task(found: Mapping[str, Any]) -> str:
    task = found["task"]
    kind = str(task["type"]).replace("_", "-")
    plural = {"text": "texts", "image": "images", "table": "rows of a table"}.get(found["modality"], found["modality"])
    return f"{kind} over {'text pairs' if task['pair'] else plural}"


def _metric(found: Mapping[str, Any]) -> str:
    name = found["metric"]["name"]
    title = METRICS[name].title if name in METRICS else name
    return title if found["metric"]["higher_is_better"] else f"{title} (lower is better)"


def _facts(found: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    yield "rows", _rows(found)
    yield "columns", _columns(found["columns"])
    if found["lengths"]:
        yield found["lengths"]["unit"], _quantiles(found["lengths"]["quantiles"])
    if found["sizes"]:
        yield "pixels", _sizes(found["sizes"])
    if found["values"]:
        v = found["values"]
        yield "label", f"mean {v['mean']:.4g}, sd {v['sd']:.4g}, from {v['low']:.4g} to {v['high']:.4g}"
    if found["classes"]:
        yield "classes", _imbalance(found)
    yield from _duplicates(found["duplicates"])
    yield from _conflicts(found["conflicting_labels"])
    least = found["smallest_difference"]
    yield "smallest difference", f"{least['value']:.3f} {least['unit']}: about what this test can tell from none"
    yield "protocol", found["protocol"]["sentence"]
    if found["notes"]:
        yield "noticed", cell(found["notes"])


def _rows(found: Mapping[str, Any]) -> str:
    sides = [f"{found[n]:,} {n}" for n in ("labelled", "unlabelled", "test") if found[n]]
    total = f"{found['rows']:,}: " if len(sides) > 1 else ""
    return total + ", ".join(sides) + ("" if found["test"] else ", no test of its own")


def _columns(columns: Mapping[str, Any]) -> str:
    """Those that are read; what was noticed names the others."""
    said = []
    for role in ("label", "text", "pair", "image", "group", "time"):
        named = columns[role]
        if named:
            said.append(f"{role} " + ", ".join(f"`{n}`" for n in ([named] if isinstance(named, str) else named)))
    features = columns["features"]
    if features:
        kinds = [f["kind"] for f in features]
        counts = ", ".join(f"{kinds.count(k)} {k}" for k in dict.fromkeys(kinds))
        said.append(f"{len(features)} features ({counts})")
    return "; ".join(said)


def _quantiles(levels: Mapping[str, Any]) -> str:
    return f"{levels['0.5']:,} in the median text, {levels['0.95']:,} at the 95th percentile, {levels['1']:,} at most"


def _sizes(sizes: Mapping[str, Sequence[int]]) -> str:
    return ", ".join(f"{name} {q[0]} to {q[-1]} (median {q[len(q) // 2]})" for name, q in sizes.items())


def _imbalance(found: Mapping[str, Any]) -> str:
    ratio = found["imbalance"]
    said = f"{len(found['classes'])}"
    if not ratio:
        return said
    return f"{said} of equal size" if ratio == 1 else f"{said}, the largest {ratio:.1f} × the smallest"


def _duplicates(found: Mapping[str, int]) -> Iterator[tuple[str, object]]:
    sides = [(n, found[f"{n}_rows"]) for n in ("labelled", "unlabelled", "test")]
    told = [f"{count:,} {name}" for name, count in sides if count]
    if told:
        yield "duplicates", f"{', '.join(told)} rows repeat another row; equal rows stay on one side of every split"


def _conflicts(found: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    if not found["contents"]:
        return
    ceiling = found["ceiling_accuracy"]
    tops = f", so no system can pass an accuracy of {ceiling:.3f}" if ceiling is not None else ""
    first = f"{found['contents']:,} inputs have several labels ({found['rows']:,} rows){tops}"
    shown = [f"“{_short(e['input'])}”: {', '.join(e['labels'])}" for e in found["examples"][:EXAMPLES]]
    yield "conflicting labels", [first, *shown]


def _short(text: object) -> str:
    return plain(text, limit=LONG)


def _classes(classes: Sequence[Mapping[str, Any]]) -> Table:
    most = max(c["rows"] for c in classes) or 1
    rows: list[tuple[object, ...]] = [
        (_short(c["name"]), f"{c['rows']:,}", cell(_bar(c["rows"] / most))) for c in classes[:SHOWN]
    ]
    if len(classes) > SHOWN:
        rows.append((f"and {len(classes) - SHOWN} more", f"{sum(c['rows'] for c in classes[SHOWN:]):,}", ""))
    return table("class", ">rows", "", rows=rows)


def _bar(fraction: float) -> str:
    """
    >>> _bar(0.05)
    '█▌'
    """
    eighths = round(fraction * BAR * 8)
    return "█" * (eighths // 8) + EIGHTHS[eighths % 8].strip() if eighths else ""
