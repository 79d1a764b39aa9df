"""The report of a run as one HTML page, and its model card, from JSON values alone.

The page has no script and asks the network for nothing. Every string that comes from outside is written out by
`plain` (controls, escapes, direction marks) and then escaped by the template; figures are inline SVG.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from headstart.core import METRICS
from headstart.numerics.plain_text import plain

from . import figures
from .card import front_matter, licence_notes

LONGEST = 4_000  # characters of any string from outside
LONGEST_TEXT = 700  # characters shown of one example
SHOWN = 40  # rows of a table before the rest is only counted
SQUARE = 14  # classes up to which the confusion is drawn as a square
IMAGE = re.compile(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/]+={0,2}")
JSON = Mapping[str, Any]

SOURCE_FIELDS = ("name", "kind", "origin", "licence", "base", "lineage", "used", "trained_on", "loads_with")
HEADLINES = {
    "helps": "Transfer helps",
    "no-evidence": "No evidence that transfer helps",
    "hurts": "Transfer hurts",
    None: "Not verified",
}
MARKS = {"helps": "✓", "no-evidence": "≈", "hurts": "✕", None: "…"}


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportData:
    """Everything that the report and the model card show; JSON values only, so that it can be saved and drawn again.

    title: name of the target. summary: the content of `solve --json`. card: the content of `inspect --json`.
    verified: `Verified.as_dict()`, or None where the budget ended before verify.
    race: one row a source of the ranking, best first: `id`, `name`, `score`, `low`, `high`, `rows` (seen when it left
    or finished), `cost_seconds`, `dropped` (None, or why it left), `harm` (None, or how it would hurt).
    trials: one row a trial, best first: `name`, `source`, `route`, `score`, `low`, `high`, `seconds`, `error`; score is
    out of fold, on the target's metric; error says also what cut a trial short.
    agreement: one row a system: `name`, `predicted` (out of fold), `value`, `low`, `high` (measured on the test).
    examples: of the worst errors, in order: `row`, `label`, `predicted`, `probability` (None for numbers), and one of
    `text`, `cells` (column to value) and `thumbnail` (from `figures.thumbnail`).
    stages: `stage`, `forecast_seconds` (None where there was none), `seconds`. minutes: the limit given, or None.
    sources: `id`, `name`, `kind`, `origin`, `licence`, `base`, `lineage` (names), `used` (stands in the chosen system),
    `trained_on` (a sentence: what is known of the rows it was trained on), `loads_with` (the class that loads it).
    warnings: sentences. test_openings: how often this test was opened, as the bank counts, or None.
    use, reproduce: shell commands, one a line. use_python: lines of Python. versions: package to version.
    seeds: fixed before verify. classes: their names, in the order of the confusion.
    """

    title: str
    summary: JSON
    card: JSON
    verified: JSON | None = None
    race: Sequence[JSON] = ()
    trials: Sequence[JSON] = ()
    agreement: Sequence[JSON] = ()
    examples: Sequence[JSON] = ()
    stages: Sequence[JSON] = ()
    minutes: float | None = None
    sources: Sequence[JSON] = ()
    warnings: Sequence[str] = ()
    test_openings: int | None = None
    use: Sequence[str] = ()
    use_python: Sequence[str] = ()
    reproduce: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    seeds: Sequence[int] = ()
    classes: Sequence[str] = ()

    def used_sources(self) -> list[JSON]:
        """The sources that stand in what is returned: none when that is the no-transfer system."""
        return [s for s in self.sources if s.get("used") and self.summary.get("returned") != "no-transfer"]

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: JSON) -> ReportData:
        """The inverse of `as_dict`; fields of a later version are left out."""
        known = {f.name for f in dataclasses.fields(cls)}
        return cls(**{k: v for k, v in fields.items() if k in known})


def render(data: ReportData, *, examples: bool = True) -> str:
    """The whole page. examples: whether inputs of the worst errors are shown.

    The same data give the same page, byte for byte.
    """
    shown = _cleaned(data if examples else dataclasses.replace(data, examples=()))
    return environment().get_template("report.html").render(_page(shown, with_examples=examples))


def card(data: ReportData) -> str:
    """The model card, `README.md`, with a YAML head as the hub reads it."""
    shown = _cleaned(data)
    values = _page(shown, with_examples=False)
    return environment().get_template("card.md").render(values, head=front_matter(shown))


def sentence(summary: JSON) -> str:
    """The verdict in one sentence, from the content of `solve --json`.

    >>> sentence({"verdict": "no-evidence", "returned": "no-transfer", "metric": "accuracy", "gain": None})
    'no source could be used, so there was nothing to compare; the best system without transfer is returned'
    """
    score, gain, verdict = summary.get("score"), summary.get("gain"), summary.get("verdict")
    metric = _title(summary)
    if verdict is None:
        ended = "the run was stopped" if summary.get("interrupted") else "the budget ended"
        return f"{ended} before verify, so the test rows stay sealed; the best system so far is saved" + (
            f", with {metric} {_range(score)} on validation" if score else ""
        )
    worth = f", with {metric} {_range(score)}" if score else ""
    stays = f"the best system without transfer is returned{worth}"
    if gain is None:
        return f"no source could be used, so there was nothing to compare; {stays}"
    outer = summary.get("protocol") == "outer_cv"
    what = "choosing and adapting a source in this way" if outer else "the chosen system"
    taken = summary.get("returned") == "chosen"
    span = f"{_signed(gain.get('low'))} to {_signed(gain.get('high'))}"
    if verdict == "no-evidence":
        return (
            f"{what} differs by {_signed(gain.get('value'))} in {metric} from the best system without transfer, "
            f"and the interval of that ({span}) holds 0; "
            + (f"the chosen system is returned{worth}" if taken else stays)
        )
    amount = f"{_number(abs(gain.get('value') or 0))} in {metric}"
    turn = f"gains {amount} over" if verdict == "helps" else f"loses {amount} against"
    kept = "and is returned" if taken and not outer else "and the chosen system is returned" if taken else f"so {stays}"
    return f"{what} {turn} the best system without transfer ({span}), {kept}" + (worth if taken else "")


@cache
def environment() -> Environment:
    made = Environment(
        loader=PackageLoader("headstart.evidence", "templates"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "number": _number, "signed": _signed, "range": _range, "seconds": _seconds, "said": _said, "md": _markdown,
        "percent": _percent, "quoted": _quoted,
    }  # fmt: skip
    return made


def _cleaned(data: ReportData) -> ReportData:
    """Every string of every field written out, and cut where it is longer than anyone reads."""
    return ReportData(**{f.name: shown_plainly(getattr(data, f.name), f.name) for f in dataclasses.fields(data)})


def shown_plainly(value: Any, name: str = "") -> Any:
    if isinstance(value, str):
        if name == "thumbnail" and IMAGE.fullmatch(value):
            return value
        return plain(value, lines=name == "text", limit=LONGEST_TEXT if name in ("text", "cells") else LONGEST)
    if isinstance(value, Mapping):
        keep = "cells" if name == "cells" else None
        return {plain(k, limit=LONGEST): shown_plainly(v, keep or str(k)) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [shown_plainly(v, name) for v in value]
    return value


def _page(data: ReportData, *, with_examples: bool) -> dict[str, Any]:
    """What the templates name."""
    summary, verified = data.summary, data.verified
    verdict = summary.get("verdict")
    verdict = verdict if verdict in HEADLINES else None
    portrait = _portrait(data)
    systems = _systems(data)
    out = str(summary.get("out") or ".")
    return {
        "data": data,
        "summary": summary,
        "class_rows": _filled(
            [c if isinstance(c, Mapping) else {"name": c} for c in data.card.get("classes") or ()], ("name", "rows")
        ),
        "notes": data.card.get("notes") or (),
        "verdict": verdict or "none",
        "headline": HEADLINES[verdict],
        "mark": MARKS[verdict],
        "sentence": (words := sentence(summary))[:1].upper() + words[1:] + ".",
        "metric": _title(summary),
        "lower_is_better": summary.get("metric") in METRICS and METRICS[summary["metric"]].sign < 0,
        "returned": "the chosen system" if summary.get("returned") == "chosen" else "the system without transfer",
        "systems": systems,
        "gains": _gains(data),
        "findings": list((verified or {}).get("findings", ())),
        "figure_scores": _drawn_scores(systems, _title(summary)),
        "figure_agreement": _drawn_agreement(data),
        "agreement_tau": _tau(data.agreement),
        "calibration": (calibration := (portrait.get("calibration") or {})),
        "figure_calibration": _drawn_calibration(calibration),
        "confusion": _confusion(portrait.get("confusion") or (), data.classes),
        "examples": [_example(e) for e in data.examples],
        "with_examples": with_examples,
        "stages": _stages(data.stages),
        "race": _filled(data.race[:SHOWN], ("name", "score", "low", "high", "rows", "cost_seconds", "dropped", "harm")),
        "trials": _filled(data.trials[:SHOWN], ("name", "source", "route", "score", "low", "high", "seconds", "error")),
        "agreement": _filled(data.agreement, ("name", "predicted", "value", "low", "high")),
        "sources": _filled(data.sources, SOURCE_FIELDS),
        "used": _filled(data.used_sources(), SOURCE_FIELDS),
        "licences": licence_notes(data.used_sources()),
        "use": list(data.use) or [f"headstart predict {shlex.quote(out)} new.csv"],
        "use_python": list(data.use_python)
        or [
            "import headstart as hs",
            f"result = hs.load({str(summary.get('out') or '.')!r})",
            'result.predict("new.csv")',
        ],
        "task_facts": _facts(data.card),
    }


def _filled(rows: Sequence[JSON], fields: Sequence[str]) -> list[dict[str, Any]]:
    """Rows with None for every field that they lack."""
    return [{**dict.fromkeys(fields), **row} for row in rows]


def _portrait(data: ReportData) -> JSON:
    """Row by row figures of what is returned."""
    if data.verified is None:
        return {}
    found = data.verified.get("chosen") if data.summary.get("returned") == "chosen" else None
    return found or data.verified.get("no_transfer") or {}


def _systems(data: ReportData) -> list[dict[str, Any]]:
    """Every system that was scored on the test, the chosen one first."""
    summary, verified = data.summary, data.verified or {}
    opponent, naive = verified.get("no_transfer_name"), (verified.get("choice_gain") or {}).get("opponent")
    rows: list[dict[str, Any]] = []
    if chosen := summary.get("candidate"):
        strong = summary.get("returned") == "chosen"
        rows.append({**chosen, "name": f"chosen: {chosen['name']}", "role": "the chosen system", "strong": strong})
    for one in summary.get("baselines") or ():
        role = "best without transfer" if one.get("name") == opponent else ""
        role = "best naive transfer" if one.get("name") == naive else role
        strong = summary.get("returned") == "no-transfer" and one.get("name") == opponent
        rows.append({**one, "role": role, "strong": strong})
    return _filled(rows, ("name", "value", "low", "high", "role", "strong"))


def _gains(data: ReportData) -> list[dict[str, Any]]:
    """The two questions, with their answers where there are any."""
    summary, verified = data.summary, data.verified or {}
    asked = (
        ("gain", "Does transfer help?", "the best system without transfer"),
        ("choice_gain", "Did choosing help?", "the best naive transfer"),
    )
    rows = []
    for key, question, against in asked:
        if answer := summary.get(key):
            row = {"question": question, "against": against, **(verified.get(key) or {}), **answer}
            rows.append({"opponent": None, **row, "verdict": row.get("verdict") or summary.get("verdict")})
    return rows


def _drawn_scores(systems: Sequence[JSON], metric: str) -> Markup | None:
    rows = [s for s in systems if figures.drawable(s)]
    if not rows:
        return None
    plainly = [s["value"] for s in rows if s.get("role") == "best without transfer"]
    return Markup(figures.intervals(rows, label=metric, mark=plainly[0] if plainly else None))


def _drawn_calibration(finding: JSON) -> Markup | None:
    curve = (finding.get("figures") or {}).get("curve") or ()
    return Markup(figures.calibration(curve)) if len(curve) > 1 else None


def _drawn_agreement(data: ReportData) -> Markup | None:
    rows = [r for r in data.agreement if figures.drawable(r) and figures.finite(r.get("predicted"))]
    return Markup(figures.agreement(rows, label=_title(data.summary))) if len(rows) > 1 else None


def _tau(rows: Sequence[JSON]) -> float | None:
    """Kendall's rank correlation of predicted and measured; None for fewer than five systems, where it says little."""
    from scipy.stats import kendalltau

    pairs = [
        (r["predicted"], r["value"]) for r in rows if all(figures.finite(r.get(k)) for k in ("predicted", "value"))
    ]
    if len(pairs) < 5:
        return None
    found = float(kendalltau(*zip(*pairs, strict=True)).statistic)
    return found if found == found else None


def _confusion(cells: Sequence[Sequence[int]], classes: Sequence[str]) -> dict[str, Any]:
    """A square for few classes; for many, the pairs that are confused most."""
    names = [classes[i] if i < len(classes) else str(i) for i in range(len(cells))]
    wrong = sorted(
        ((n, i, j) for i, row in enumerate(cells) for j, n in enumerate(row) if i != j and n),
        key=lambda t: (-t[0], t[1], t[2]),
    )
    square = []
    for i, row in enumerate(cells if len(cells) <= SQUARE else ()):
        drawn = [{"rows": n, "share": round(n / max(sum(row), 1), 3), "hit": i == j} for j, n in enumerate(row)]
        square.append({"name": names[i], "cells": drawn})
    pairs = [{"rows": n, "label": names[i], "said": names[j], "of": sum(cells[i])} for n, i, j in wrong[:12]]
    return {"square": square, "pairs": pairs, "names": names, "classes": len(cells)}


def _example(row: JSON) -> dict[str, Any]:
    image = row.get("thumbnail")
    safe = image if isinstance(image, str) and IMAGE.fullmatch(image) else None
    probability = row.get("probability")
    return {
        "row": row.get("row"), "label": row.get("label"), "predicted": row.get("predicted"),
        "probability": probability, "text": row.get("text"), "cells": row.get("cells"), "thumbnail": safe,
    }  # fmt: skip


def _stages(stages: Sequence[JSON]) -> list[dict[str, Any]]:
    most = max([float(s.get(k) or 0) for s in stages for k in ("seconds", "forecast_seconds")] or [0]) or 1.0
    return [
        {
            "stage": s.get("stage"),
            "seconds": s.get("seconds"),
            "forecast": s.get("forecast_seconds"),
            "bar": round(100 * float(s.get("seconds") or 0) / most, 1),
            "forecast_bar": round(100 * float(s.get("forecast_seconds") or 0) / most, 1),
        }
        for s in stages
    ]


def _facts(card: JSON) -> list[tuple[str, str]]:
    """The target card's lines, in order, where they say anything; inputs of rows are never among them."""
    lines = [
        ("task", _kind(card.get("task")).replace("_", "-")),
        ("modality", card.get("modality")),
        ("metric", _title(card) if card.get("metric") else None),
        ("rows", card.get("rows")),
        ("labelled", card.get("labelled")),
        ("unlabelled", card.get("unlabelled")),
        ("test", card.get("test")),
        ("largest class over smallest", card.get("imbalance")),
        ("values", card.get("values")),
        ("lengths", _spread(card.get("lengths"))),
        ("sizes", _spread(card.get("sizes"))),
        ("duplicates", card.get("duplicates")),
        ("equal inputs with different labels", _counts(card.get("conflicting_labels"))),
        ("label variants", [" / ".join(map(str, v)) for v in card.get("label_variants") or ()]),
        ("leaks", [leak.get("sentence") for leak in card.get("leaks") or () if isinstance(leak, Mapping)]),
        ("smallest difference the test can show", _amount(card.get("smallest_difference"))),
        ("protocol", protocol.get("sentence") if isinstance(protocol := card.get("protocol"), Mapping) else protocol),
    ]
    return [(name, _said(value)) for name, value in lines if value not in (None, "", [], {})]


def _kind(task: Any) -> str:
    return str((task.get("type") if isinstance(task, Mapping) else task) or "")


def _spread(lengths: Any) -> Any:
    """Median and greatest, where quantiles are given."""
    if not isinstance(lengths, Mapping) or not isinstance(quantiles := lengths.get("quantiles"), Mapping):
        return lengths
    return f"median {_number(quantiles.get('0.5'))}, longest {_number(quantiles.get('1'))} {lengths.get('unit', '')}"


def _counts(found: Any) -> Any:
    """Only the numbers of what may quote rows."""
    if isinstance(found, Mapping):
        return {k: v for k, v in found.items() if isinstance(v, int | float)}
    return len(found) if isinstance(found, list) else found


def _amount(found: Any) -> Any:
    return f"{_number(found.get('value'))} {found.get('unit', '')}" if isinstance(found, Mapping) else found


def _title(holder: JSON) -> str:
    metric = holder.get("metric") or "score"
    name = str(metric.get("name") if isinstance(metric, Mapping) else metric)
    return METRICS[name].title if name in METRICS else name


def _number(value: Any) -> str:
    """Three decimals, whole numbers with separators from a thousand on, four digits where that is too coarse.

    >>> _number(0.91666), _number(1234567), _number(12345.6), _number(0.00012), _number(None)
    ('0.917', '1,234,567', '12,346', '0.00012', '–')
    """
    if value is None or isinstance(value, str | bool):
        return "–" if value is None else str(value)
    if not figures.finite(value):
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    if 1000 <= abs(value) < 1e9:
        shown = f"{value:,.0f}"
    else:
        shown = f"{value:.3f}" if value == 0 or 0.001 <= abs(value) < 1000 else f"{value:.4g}"
    return shown.replace("-", "−", 1) if value < 0 else shown


def _signed(value: Any) -> str:
    return f"+{_number(value)}" if isinstance(value, int | float) and value >= 0 else _number(value)


def _range(measured: Any) -> str:
    if not isinstance(measured, Mapping) or measured.get("value") is None:
        return "–"
    if measured.get("low") is None or measured.get("high") is None:
        return _number(measured["value"])
    return f"{_number(measured['value'])} ({_number(measured['low'])} to {_number(measured['high'])})"


def _percent(share: Any) -> str:
    return "–" if share is None else f"{100 * share:.0f}\u00a0%"


def _seconds(value: Any) -> str:
    """A duration as people say it.

    >>> _seconds(0.42), _seconds(75), _seconds(4000)
    ('0.4 s', '1 min 15 s', '1 h 07 min')
    """
    if value is None:
        return "–"
    if value < 9.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60:02d} s" if whole % 60 else "")
    return f"{whole // 3600} h {round(whole % 3600 / 60):02d} min"


def _said(value: Any) -> str:
    """A JSON value in words, whatever its shape."""
    if isinstance(value, Mapping):
        return ", ".join(f"{str(k).replace('_', ' ')} {_said(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        rest = f" and {len(value) - 8:,} more" if len(value) > 8 else ""
        return ", ".join(_said(v) for v in value[:8]) + rest
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _number(value)


def _quoted(text: Any) -> Markup:
    """Text with what stands in backticks set as code; escaped first."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _markdown(text: Any) -> str:
    """Text that Markdown and HTML show as it is: one line, with every mark that could mean something escaped."""
    flat = re.sub(r"([\\`*_\[\]|~])", r"\\\1", plain(text, limit=LONGEST))
    flat = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([$@]|(?<=[a-zA-Z]):(?=//)|(?<=www)\.|^[#+\-=])", lambda m: f"&#{ord(m[1])};", flat, flags=re.I)
