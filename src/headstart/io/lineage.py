"""Where a model comes from, as far as the files in its folder say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.core import Unreadable

from .safe_files import read_json

if TYPE_CHECKING:
    from .model_folders import ModelFolder

MERGED = "merge.json"
CHANGED = "delta.json"  # what `delta apply` leaves beside the weights
Origin = dict[str, Any]


def origin(folder: ModelFolder) -> Origin | None:
    """{by: merge, delta or adapter; method; base: its name; models: names; weights: fingerprint of the base's, if it is
    known}; None where nothing is told, or nothing that can be read."""
    if not folder.is_made:
        return None
    if folder.adapter is not None:
        said = _read(folder.adapter, "adapter_config.json")
        return _origin("adapter", said.get("peft_type"), said.get("base_model_name_or_path"), [folder.adapter.name])
    changed = _read(folder.where, CHANGED)
    if changed:
        return _origin(
            "delta", changed.get("method"), changed.get("base"), [changed.get("tuned")], changed.get("weights")
        )
    for place in (folder.where, folder.where.parent):
        receipt = _read(place, MERGED)
        facts = receipt.get("facts")
        if isinstance(facts, dict) and (place == folder.where or folder.where.name in _folders(facts)):
            return _origin(
                "merge", receipt.get("method"), facts.get("base"), facts.get("models"), facts.get("base_weights")
            )
    return None


def record(base: Any, weights: str, tuned: Any, method: Any) -> dict[str, Any]:
    """What `delta.json` holds. weights: fingerprint of the base's."""
    return {"base": base, "weights": weights, "tuned": tuned, "method": method}


def _origin(by: str, method: Any, base: Any, models: Any, weights: Any = None) -> Origin:
    named = [_name(m) for m in models if isinstance(m, str)] if isinstance(models, list) else []
    return {
        "by": by,
        "method": method if isinstance(method, str) else None,
        "base": _name(base) if isinstance(base, str) else None,
        "models": named,
        "weights": weights if isinstance(weights, str) else None,
    }


def _name(address: str) -> str:
    """The last part of a path."""
    return Path(address).name or address


def _folders(facts: Mapping[str, Any]) -> list[str]:
    """The models that a merge made, below its folder."""
    listed = facts.get("folders")
    return [str(f.get("folder")) for f in listed if isinstance(f, dict)] if isinstance(listed, list) else []


def _read(folder: Path, name: str) -> dict[str, Any]:
    """An empty object for what is damaged: a merge does not need it."""
    try:
        return read_json(folder, name)
    except Unreadable:
        return {}
