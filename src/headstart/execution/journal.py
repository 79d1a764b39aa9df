"""The journal: what a run admitted, finished and decided, line by line, so that it can go on after a crash.

One JSON object a line, each with its number and a checksum, appended and synced. A torn last line is cut; damage
before it is `Unreadable`. Lines: `header` (version, inputs), `session` (one each time the run is started), `admitted`,
`finished`, `failed`, `stopped`, `dropped`, `decision`, `barrier`, `note`. A line that was written when the time was
over, or after Ctrl-C, is marked late: once there is time again, and the test is still sealed, late decisions and stops
no longer count.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from headstart.core import Problem, Refused, Unreadable

from .specs import canonical

VERSION = 1
SEAL_OPENED = "seal opened"  # the note after which nothing may be chosen any more
ENDS = ("finished", "failed", "stopped")


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _line(fields: Mapping[str, Any]) -> bytes:
    text = canonical(fields)
    return f'{text[:-1]},"sum":"{_sum(text)}"}}\n'.encode()


def _parse(line: bytes, number: int) -> dict[str, Any] | None:
    """The fields of a line, or None where it is damaged."""
    try:
        fields = json.loads(line)
    except ValueError:
        return None
    if not isinstance(fields, dict) or fields.get("n") != number:
        return None
    kept = fields.pop("sum", None)
    return fields if _sum(canonical(fields)) == kept else None


def read(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The whole lines of a journal, and the bytes they take; what lies after those is a torn last line.

    Raises `Unreadable` for damage before the last line, `Refused` for a newer version.
    """
    data = path.read_bytes() if path.exists() else b""
    found: list[dict[str, Any]] = []
    at = 0
    while at < len(data):
        end = data.find(b"\n", at)
        fields = _parse(data[at:end], len(found)) if end >= 0 else None
        if fields is None:
            if end >= 0 and end + 1 < len(data):
                raise Unreadable(
                    f"line {len(found) + 1} is damaged",
                    where=f"`{path}`",
                    fix="begin again with `--overwrite`, or in another folder",
                )
            break
        if not found and fields.get("version", 0) > VERSION:
            raise Refused(
                f"the journal has version {fields['version']}, and this headstart writes {VERSION}",
                where=f"`{path}`",
                fix="run `pip install --upgrade headstart`",
            )
        found.append(fields)
        at = end + 1
    return found, at


class Journal:
    """An open journal of one run, held by one process.

    hook: called with a name before and after each line is written; tests raise there.
    clock: seconds that this session has taken; late: whether lines are written too late to bind a later session.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float] = lambda: 0.0,
        late: Callable[[], bool] = lambda: False,
        hook: Callable[[str], None] | None = None,
    ) -> None:
        self.path, self.clock, self.late, self.hook = path, clock, late, hook
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            os.close(self._file)
            busy = isinstance(e, BlockingIOError)
            raise Refused(
                "another process works on this run" if busy else f"files cannot be locked here ({e.strerror})",
                where=f"`{path.parent}`",
                fix="wait for it, or use another folder" if busy else "use a folder on a local disk",
            ) from None
        try:
            lines, whole = read(path)
        except BaseException:
            os.close(self._file)
            raise
        os.ftruncate(self._file, whole)
        self.lines: list[dict[str, Any]] = []
        self.admitted: dict[str, dict[str, Any]] = {}
        self.ends: dict[str, dict[str, Any]] = {}
        self.dropped: set[str] = set()
        self.decisions: dict[str, dict[str, Any]] = {}
        self.notes: dict[str, list[dict[str, Any]]] = {}
        for fields in lines:
            self._take(fields)

    @property
    def header(self) -> dict[str, Any] | None:
        return self.lines[0] if self.lines else None

    @property
    def spent(self) -> float:
        """Seconds of all sessions so far; the time between them is not charged."""
        total = last = 0.0
        for fields in self.lines:
            if fields["event"] == "session":
                total, last = total + last, 0.0
            last = max(last, float(fields["t"]))
        return total + last

    def write(self, event: str, **facts: Any) -> dict[str, Any]:
        """Append a line, on disk when this returns; gives the fields as they will be read back."""
        raw = {"n": len(self.lines), "t": round(self.clock(), 3), "event": event, **facts}
        if self.late():
            raw["late"] = True
        fields: dict[str, Any] = json.loads(canonical(raw))
        data = _line(fields)
        if self.hook:
            self.hook(f"journal.{event}.before")
        at = os.fstat(self._file).st_size
        try:
            while data:
                data = data[os.write(self._file, data) :]
            os.fsync(self._file)
        except OSError as e:
            os.ftruncate(self._file, at)  # a full disk: no half line stays before the next one
            raise Problem(
                f"the journal cannot be written ({e.strerror})",
                where=f"`{self.path}`",
                fix="free some space, then go on with `--resume`",
            ) from e
        self._take(fields)
        if self.hook:
            self.hook(f"journal.{event}.after")
        return fields

    def _take(self, fields: dict[str, Any]) -> None:
        self.lines.append(fields)
        event = fields["event"]
        if event == "admitted":
            for one in fields["jobs"]:
                self.admitted[one["key"]] = {**one, "threads": fields["threads"]}
        elif event in ENDS:
            self.ends[fields["key"]] = fields
        elif event == "dropped":
            self.dropped.add(fields["key"])
        elif event == "decision":
            self.decisions[fields["name"]] = fields
        elif event == "note":
            self.notes.setdefault(fields["name"], []).append(fields["facts"])

    def forget_late(self) -> None:
        """Leave out what was decided or stopped only because the time was over."""
        self.decisions = {k: v for k, v in self.decisions.items() if not v.get("late")}
        self.ends = {k: v for k, v in self.ends.items() if v["event"] == "finished" or not v.get("late")}

    def forget_stops_of_verify(self) -> None:
        """Leave out what was stopped after the test was opened: choices stand, and what they need may be finished."""
        opened = min(line["n"] for line in self.lines if line["event"] == "note" and line["name"] == SEAL_OPENED)
        self.ends = {k: v for k, v in self.ends.items() if v["event"] != "stopped" or v["n"] < opened}

    def close(self) -> None:
        os.close(self._file)
