"""The model card of a result, in the hub's format, and what the licences of its sources ask for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from .report import ReportData

PERMISSIVE = ("apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause", "isc", "unlicense", "cc0-1.0", "zlib", "0bsd")
PIPELINES = {
    ("text", "single_label"): "text-classification",
    ("text", "multi_label"): "text-classification",
    ("text", "tagging"): "token-classification",
    ("image", "single_label"): "image-classification",
    ("table", "single_label"): "tabular-classification",
    ("table", "regression"): "tabular-regression",
}
HUB_METRICS = {
    "macro_f1": "f1", "micro_f1": "f1", "accuracy": "accuracy", "balanced_accuracy": "accuracy", "auroc": "roc_auc",
    "span_f1": "seqeval", "rmse": "mse", "mae": "mae", "r2": "r_squared", "spearman": "spearmanr",
}  # fmt: skip


def licence_notes(sources: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """What the licences of the sources used mean for the result, in sentences; read from their names alone.

    >>> licence_notes([{"name": "a", "licence": "cc-by-nc-4.0"}])
    ('`a` is under cc-by-nc-4.0: the result is for non-commercial use only',)
    """
    notes = []
    for source in sources:
        name, licence = source.get("name", "?"), _normal(source.get("licence"))
        if licence is None:
            notes.append(f"the licence of `{name}` is unknown: find it out before the result is shared")
        elif _noncommercial(licence):
            notes.append(f"`{name}` is under {licence}: the result is for non-commercial use only")
        elif _copyleft(licence):
            notes.append(f"`{name}` is under {licence}: whoever passes the result on does so under the same licence")
        elif licence not in PERMISSIVE and not licence.startswith("cc-by-"):
            notes.append(
                f"`{name}` is under {licence}: these are terms of its own, read them before the result is shared"
            )
        if licence is not None and "-nd" in licence:
            notes.append(f"`{name}` is under {licence}: it allows no changed versions, and a fine-tune is one")
    for a, b in combinations(sources, 2):
        if conflict := _conflict(_normal(a.get("licence")), _normal(b.get("licence"))):
            notes.append(f"conflict between `{a.get('name', '?')}` and `{b.get('name', '?')}`: {conflict}")
    return tuple(dict.fromkeys(notes))


def _conflict(a: str | None, b: str | None) -> str | None:
    if a is None or b is None or a == b:
        return None
    for one, other in ((a, b), (b, a)):
        if _noncommercial(one) and not _noncommercial(other):
            if _copyleft(other):
                return f"{other} allows no further limits, and {one} forbids commercial use"
            return f"{one} forbids commercial use, which {other} allows; together it is forbidden"
        if _family(one) == "gpl-2.0" and other in ("apache-2.0", "gpl-3.0", "agpl-3.0", "lgpl-3.0"):
            return f"{one} and {other} cannot be passed on together, unless the former says `or later`"
    if (
        _copyleft(a)
        and _copyleft(b)
        and _family(a) != _family(b)
        and {_family(a), _family(b)} != {"gpl-3.0", "agpl-3.0"}
    ):
        return f"{a} and {b} each ask for their own terms, and a result has one"
    return None


def _normal(licence: Any) -> str | None:
    text = re.sub(r"[\s_]+", "-", str(licence or "").strip().lower())
    return None if text in ("", "unknown", "other", "none") else text


def _noncommercial(licence: str) -> bool:
    return bool(re.search(r"(^|-)nc(-|$)|non-?commercial|research-only", licence))


def _copyleft(licence: str) -> bool:
    return bool(re.match(r"[al]?gpl|cc-by(-nc)?-sa|eupl|osl", licence))


def _family(licence: str) -> str:
    return re.sub(r"-(only|or-later)$|\+$", "", licence)


def licence_of(sources: Sequence[Mapping[str, Any]]) -> str:
    """The one licence of all sources, as the hub names it, or `other`; `unknown` where one is not known.

    >>> licence_of([{"licence": "MIT"}, {"licence": "mit"}])
    'mit'
    """
    found = {_normal(s.get("licence")) for s in sources}
    if None in found or not found:
        return "unknown"
    return str(found.pop()) if len(found) == 1 else "other"


def front_matter(data: ReportData) -> str:
    """The card's YAML head: every string is quoted by the YAML writer, so none can end the head or add a key."""
    summary, used = data.summary, data.used_sources()
    task, modality = data.card.get("task"), data.card.get("modality")
    task_type = task.get("type") if isinstance(task, Mapping) else task
    metric = str(summary.get("metric") or "")
    head: dict[str, Any] = {
        "library_name": "headstart",
        "tags": ["headstart", "transfer-learning", *([str(modality)] if modality else [])],
    }
    if used:
        licence = licence_of(used)
        head["license"] = licence if licence != "unknown" else "other"
        if head["license"] == "other":
            head["license_name"] = "; ".join(f"{s.get('name', '?')}: {s.get('licence') or 'unknown'}" for s in used)
        head["base_model"] = list(dict.fromkeys(_hub_name(s) for s in used))
    if pipeline := PIPELINES.get((str(modality), str(task_type))):
        head["pipeline_tag"] = pipeline
    if metric in HUB_METRICS:
        head["metrics"] = [HUB_METRICS[metric]]
    score = summary.get("score")
    if isinstance(score, Mapping) and metric:
        result = {
            "task": {"type": pipeline or "other"},
            "dataset": {"name": data.title, "type": "private"},
            "metrics": [{"type": HUB_METRICS.get(metric, metric), "name": metric, "value": score.get("value")}],
        }
        head["model-index"] = [{"name": data.title, "results": [result]}]
    return yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=10**9).strip()


def _hub_name(source: Mapping[str, Any]) -> str:
    """`org/name` where the source came from the hub, else the name it has on the shelf."""
    found = re.fullmatch(r"hub:([\w.-]+/[\w.-]+)(@[\w.-]+)?", str(source.get("origin") or ""))
    return found[1] if found else str(source.get("name", "?"))
