"""Saved Results, format 1: a folder that predicts, and needs nothing outside itself.

headstart.json       format, task, columns, members and weights, verdict, summary, versions, checksums; comes last
members/NN/          a table of steps (`io.artifacts`), or an adapted source (`io.members`)
bases/ID/            an encoder that several members share
receipt.json         what was run
rows.json            keyed hashes of the rows that were trained and tested on
predictions.parquet  on the rows that decided
report.html README.md candidate/   what others write beside it

The files are made in a hidden folder inside `out`, and then moved; a folder without `headstart.json` is no result.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.core import RECEIPT_VERSION, Columns, Receipt, Source, Task, Unreadable
from headstart.numerics.artifacts import Array, Artifact, Model, Table

from . import artifacts, atomic
from .safe_files import inside

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 1
MANIFEST = "headstart.json"
OWN = (
    "members", "bases", "candidate", "receipt.json", "rows.json", "predictions.parquet", "report.html", "report.json",
    "README.md",
    MANIFEST,
)  # fmt: skip
PACKAGES = ("numpy", "scikit-learn", "lightgbm", "torch", "transformers", "peft")


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Member:
    """One system of a result. name: as the receipt calls it. source: what the artifact sits on; None for a table."""

    artifact: Artifact
    weight: float = 1.0
    name: str = ""
    source: Source | None = None


class Saved:
    """A result that was read: what its `headstart.json` says, its receipt, and its predictions for new rows."""

    __slots__ = ("_open", "columns", "folder", "meta", "receipt", "task")

    def __init__(self, folder: Path, meta: Mapping[str, Any], receipt: Receipt, task: Task, columns: Columns) -> None:
        self.folder, self.meta, self.receipt, self.task, self.columns = folder, meta, receipt, task, columns
        self._open: list[tuple[float, Callable[[pa.Table], Array]]] | None = None

    @property
    def modality(self) -> str:
        return str(self.meta["modality"])

    def predict_rows(self, inputs: pa.Table) -> Array:
        """(rows, outputs) float64 from `Rows.inputs`: the weighted mean of the members' probabilities or values."""
        if self._open is None:
            self._open = [(float(m["weight"]), _opened(self.folder, m)) for m in self.meta["members"]]
        total: Array | None = None
        for weight, member in self._open:
            part = weight * np.asarray(member(inputs), dtype=np.float64)
            total = part if total is None else total + part
        assert total is not None  # `read` refuses a result without members
        return total / sum(weight for weight, _ in self._open)


def admit(out: str | Path, *, overwrite: bool = False) -> None:
    """Raises a `Problem` now that `write` would raise later: the folder holds a result, or cannot be written to."""
    folder = Path(out)
    with atomic.writing(folder):
        if not overwrite and _occupied(folder):
            raise atomic.occupied(folder)
        there = folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        os.rmdir(tempfile.mkdtemp(prefix=atomic.PART, dir=folder))
        if not there:
            folder.rmdir()


def write(
    out: str | Path,
    *,
    members: Sequence[Member],
    task: Task,
    modality: str,
    metric: str,
    columns: Columns,
    receipt: Receipt,
    name: str = "",
    summary: Mapping[str, Any] | None = None,
    predictions: pa.Table | None = None,
    rows: Mapping[str, Sequence[str]] | None = None,
    beside: Callable[[Path], None] | None = None,
    overwrite: bool = False,
    event: atomic.Event | None = None,
) -> Path:
    """The result as a folder, whole or not at all. A journal under `out/run/` stays where it is.

    summary: the content of `solve --json`; its `verdict` is repeated at the top. rows: keyed hashes by role. beside:
    is given the folder in the making, and adds the report, the card and `candidate/`. event: is told of each write.
    Raises `Refused` for a folder that holds a result already, and `Unreadable` when the disk is full or read-only.
    """
    folder, tell = Path(out), event or _silent
    admit(folder, overwrite=overwrite)
    there = folder.exists()
    with atomic.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for old in sorted(folder.glob(f"{atomic.PART}*")):
            shutil.rmtree(old, ignore_errors=True)
        staging = Path(tempfile.mkdtemp(prefix=atomic.PART, dir=folder))
        try:
            written = _members(members, staging, task, tell)
            meta = {
                "format": FORMAT,
                "name": name,
                "task": asdict(task),
                "modality": modality,
                "metric": metric,
                "columns": asdict(columns),
                "members": written,
                "fusion": "weighted_mean",
                "verdict": (summary or {}).get("verdict"),
                "summary": dict(summary or {}),
                "needs_network": False,
                "versions": versions(),
            }
            tell("write receipt.json")
            atomic.write_json(staging / "receipt.json", asdict(receipt))
            if rows is not None:
                tell("write rows.json")
                atomic.write_json(staging / "rows.json", {"format": FORMAT, **{k: list(v) for k, v in rows.items()}})
            if predictions is not None:
                tell("write predictions.parquet")
                import pyarrow.parquet as pq

                pq.write_table(predictions, staging / "predictions.parquet")
            if beside is not None:
                tell("write report")
                beside(staging)
            tell(f"write {MANIFEST}")
            atomic.write_json(staging / MANIFEST, {**meta, "files": _checksums(staging)})
            atomic.sync_tree(staging)
            _move_in(staging, folder, tell)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            if not there and not any(folder.iterdir()):
                folder.rmdir()
            raise
    return folder


def read(folder: str | Path) -> Saved:
    """A saved result, its files checked against their checksums; members are opened at the first prediction.

    Raises `Unreadable`, naming the file, when one is missing, damaged, newer, or leads out of the folder.
    """
    place = Path(folder)
    if not (place / MANIFEST).is_file():
        unfinished = (place / "run").is_dir()
        raise Unreadable(
            f"no `{MANIFEST}` is there" + (", only an unfinished run" if unfinished else ""),
            where=f"`{place}`",
            fix="finish it with `headstart solve … --resume`" if unfinished else "name a folder that `solve` made",
        )
    meta = artifacts.read_described(place / MANIFEST, FORMAT)
    try:
        for file, known in meta["files"].items():
            _check(place, file, int(known["bytes"]), str(known["sha256"]))
        task = Task(**{**meta["task"], "classes": tuple(meta["task"]["classes"])})
        columns = _columns(meta["columns"])
        weights = [float(m["weight"]) for m in meta["members"]]
        if not weights or min(weights) < 0 or sum(weights) <= 0:
            raise ValueError(f"the members' weights are {weights}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise artifacts.damaged(place / MANIFEST, f"{type(error).__name__}: {error}") from error
    said = artifacts.read_described(place / "receipt.json", RECEIPT_VERSION, "version")
    try:
        receipt = Receipt.from_dict(said)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise artifacts.damaged(place / "receipt.json", f"{type(error).__name__}: {error}") from error
    return Saved(place, meta, receipt, task, columns)


def rows_of(folder: str | Path) -> dict[str, tuple[str, ...]]:
    """Keyed hashes of the rows a result was trained and tested on, by role; empty where it does not say."""
    path = Path(folder) / "rows.json"
    if not path.is_file():
        return {}
    said = artifacts.read_described(path, FORMAT)
    return {k: tuple(str(h) for h in v) for k, v in said.items() if k != "format"}


def versions() -> dict[str, str]:
    """Of Python and of the packages that predictions depend on."""
    from headstart import __version__  # at the top it would be a circle

    found = {"python": platform.python_version(), "headstart": __version__}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _silent(_: str) -> None: ...


def _occupied(folder: Path) -> bool:
    """Whether a result, or files of the same names that no run of ours left, are there."""
    if folder.exists() and not folder.is_dir():
        return True
    if (folder / MANIFEST).exists():
        return True
    ours = (folder / "run").is_dir() or any(folder.glob(f"{atomic.PART}*"))
    return not ours and any((folder / name).exists() for name in OWN)


def _members(members: Sequence[Member], staging: Path, task: Task, tell: atomic.Event) -> list[dict[str, Any]]:
    bases = _shared_bases(members, staging, tell)
    written = []
    for number, member in enumerate(members):
        where = f"members/{number:02d}"
        tell(f"write {where}")
        place = staging / where
        place.mkdir(parents=True)
        said: dict[str, Any] = {"folder": where, "name": member.name, "weight": float(member.weight)}
        if member.source is None:
            assert isinstance(member.artifact, Table), "only a table predicts without a source"
            artifacts.write_into(member.artifact, place)
            written.append({**said, "kind": "table"})
            continue
        from .members import save_adapted

        assert not isinstance(member.artifact, Table), "a table sits on no source"
        base = bases.get(member.source.identity) if not isinstance(member.artifact, Model) else None
        kept = save_adapted(member.source, member.artifact, place, classes=task.classes, task=task, base=base)
        source = {k: getattr(member.source, k) for k in ("name", "id", "weights", "identity", "licence", "lineage")}
        written.append({**said, "kind": "source", "loads": kept.get("loads"), "source": source})
    return written


def _shared_bases(members: Sequence[Member], staging: Path, tell: atomic.Event) -> dict[str, Path]:
    """Encoders that more than one member sits on unchanged, stored once each."""
    used = [m.source for m in members if m.source is not None and not isinstance(m.artifact, Model)]
    counts = [source.identity for source in used]
    found: dict[str, Path] = {}
    for source in used:
        if counts.count(source.identity) < 2 or source.identity in found:
            continue
        from .members import save_base

        place = staging / "bases" / source.id
        tell(f"write bases/{source.id}")
        place.mkdir(parents=True)
        save_base(source, place)
        found[source.identity] = place
    return found


def _checksums(staging: Path) -> dict[str, dict[str, Any]]:
    """Of all that predictions and the receipt depend on."""
    found = {}
    for path in sorted(staging.rglob("*")):
        name = path.relative_to(staging).as_posix()
        if path.is_file() and name.split("/")[0] in ("members", "bases", "receipt.json", "rows.json"):
            found[name] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check(place: Path, name: str, size: int, sha256: str) -> None:
    path = inside(place, name)
    if not path.is_file():
        raise artifacts.damaged(place / name, "it is missing")
    if path.stat().st_size != size:
        raise artifacts.damaged(place / name, f"it has {path.stat().st_size} bytes, and had {size}")
    if _sha256(path) != sha256:
        raise artifacts.damaged(place / name, "its content has changed")


def _move_in(staging: Path, folder: Path, tell: atomic.Event) -> None:
    """Takes an old result's manifest away, moves the parts, and the new manifest last."""
    (folder / MANIFEST).unlink(missing_ok=True)
    names = sorted(p.name for p in staging.iterdir() if p.name != MANIFEST)
    moved: list[str] = []
    try:
        for name in OWN:
            if name not in names:
                _remove(folder / name)
        for name in [*names, MANIFEST]:
            tell(f"move {name}")
            atomic.swap_in(staging / name, folder / name)
            moved.append(name)
        staging.rmdir()
        atomic.sync(folder)
    except BaseException:
        for name in moved:
            _remove(folder / name)
        raise
    tell("saved")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _columns(said: Mapping[str, Any]) -> Columns:
    """The inverse of `asdict`: JSON's lists as tuples again."""
    values = dict(said)
    values["text"] = tuple(values.get("text") or ())
    values["pair"] = tuple(values["pair"]) if values.get("pair") else None
    values["features"] = tuple((str(n), k) for n, k in values.get("features") or ())
    return Columns(**values)


def _opened(folder: Path, member: Mapping[str, Any]) -> Callable[[pa.Table], Array]:
    place = inside(folder, str(member["folder"]))
    if member["kind"] == "source":
        from .members import open_member

        return open_member(place)
    if member["kind"] != "table":
        raise artifacts.damaged(folder / MANIFEST, f"a member's kind is {member['kind']!r}")
    artifact = artifacts.read(place)
    if not isinstance(artifact, Table):
        raise artifacts.damaged(place / "artifact.json", "it needs a source")

    def predict(inputs: pa.Table) -> Array:
        from headstart.numerics.steps import apply

        from .images import RawRows

        return apply(artifact, RawRows(inputs))

    return predict
