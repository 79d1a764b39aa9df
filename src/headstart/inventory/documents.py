"""JSON objects as ASCII text: what the bank keeps of a source, so that any string comes back as it went in."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from headstart.core import Receipt, Source, Unreadable


def dump(value: Any) -> str:
    """Text of a JSON value; ASCII alone, so NUL and half surrogates survive on every engine.

    >>> dump({"a": "é\\0"})
    '{"a": "\\\\u00e9\\\\u0000"}'
    """
    return json.dumps(value, sort_keys=True, default=_plain_value)


def load(text: str, where: str) -> Any:
    """The inverse of `dump`; raises `Unreadable` for damaged text."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise Unreadable(
            f"an entry is damaged: {error}", where=where, fix="put a copy of the bank back, or begin a new one"
        ) from error


def column(text: str) -> str:
    """A string as a column can hold it, for looking up by hand; the document keeps it exactly.

    >>> column("a\\0b")
    'a\\\\x00b'
    """
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def source_document(source: Source) -> dict[str, Any]:
    """All fields of a source as JSON values, but for its training rows, which lie apart."""
    fields = {f.name: getattr(source, f.name) for f in dataclasses.fields(source)}
    del fields["trained_on"]
    fields["receipt"] = None if source.receipt is None else dataclasses.asdict(source.receipt)
    fields["facts"] = dict(source.facts)
    return fields


def source_of(document: dict[str, Any], trained_on: frozenset[str] | None = None) -> Source:
    """The inverse of `source_document`.

    >>> one = Source(name="a", kind="checkpoint", where="/a", weights="w", identity="i", modality="text", gives=())
    >>> source_of(json.loads(dump(source_document(one)))) == one
    True
    """
    known = {f.name for f in dataclasses.fields(Source)}
    fields = {name: value for name, value in document.items() if name in known}
    for name in ("gives", "lineage"):
        fields[name] = tuple(fields.get(name, ()))
    if fields.get("receipt") is not None:
        fields["receipt"] = Receipt.from_dict(fields["receipt"])
    return Source(**fields, trained_on=trained_on)


def _plain_value(value: Any) -> Any:
    if hasattr(value, "tolist"):  # numpy's scalars and arrays
        return value.tolist()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} is not a JSON value")
