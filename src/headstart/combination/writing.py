"""A planned merge is carried out: weights streamed into files of a fixed layout, and a folder that appears whole.

What is unfinished lies in a hidden folder beside the place, named after the plan. The same merge, called again after
it was killed, goes on there at the tensor where it stopped.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart import __version__, catalogue
from headstart.core import OverBudget, Problem, Receipt, Refused, Unreadable
from headstart.io.shards import SHARD_BYTES

from .plans import Plan, counted

if TYPE_CHECKING:
    from headstart.io.model_folders import ModelFolder
    from headstart.io.shards import Shard
    from headstart.numerics.stream import Made, Part

LOCK = ".lock"
RECEIPT = "merge.json"
Report = Callable[[int, int], bool]  # bytes that are done, and bytes in all; False stops


def write(
    plan: Plan, out: Path, *, shard_bytes: int = SHARD_BYTES, threads: int | None = None, overwrite: bool = False,
    report: Report | None = None,
) -> Receipt:  # fmt: skip
    """The merged model as a new folder. Raises `Stopped` when report asks to stop; what was done is kept for the next
    call.

    Raises `Refused` where the folder holds something, `OverBudget` where the disk has too little room, before anything
    is written.
    """
    from headstart.execution.meter import cores
    from headstart.io import atomic, shards
    from headstart.numerics import stream

    began = time.perf_counter()
    layout = _layout(plan, shard_bytes)
    atomic.refuse_occupied(out, overwrite=overwrite)
    with atomic.writing(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
    staging = _staging(plan, out, shard_bytes)
    _room_for(plan, out, staging)
    with _locked(staging, out):
        try:
            with ExitStack() as stack:
                readers = [stack.enter_context(shards.Checkpoint(f.tensors)) for f in plan.folders]
                writer = stack.enter_context(shards.ShardWriter(staging, layout))
                total, ready = plan.bytes_written, sum(m.bytes for m in plan.made if m.name in writer.done)
                told = [ready]

                def tell(more: int) -> bool:
                    told[0] += more
                    return report is None or report(told[0], total)

                crew = threads or cores()
                stream.run(plan.made, readers, writer, done=writer.done, seed=plan.seed, threads=crew, report=tell)
                writer.complete()
            _verify(staging, plan)
            receipt = _receipt(plan, crew, time.perf_counter() - began)
            _files(plan, staging, receipt)
            atomic.sync_tree(staging)
            atomic.swap_in(staging, out)
            (out / LOCK).unlink()  # held until now: nobody begins in the folder while it moves
            atomic.sync(out.parent)
        except Problem:
            shutil.rmtree(staging, ignore_errors=True)
            raise
    return receipt


def _layout(plan: Plan, shard_bytes: int) -> list[Shard]:
    from headstart.io.shards import Planned, folder_of, laid_out

    main = plan.donor.main
    planned = [Planned(m.name, m.dtype, m.shape, folder_of(m.name)) for m in plan.made]
    shards = laid_out(planned, shard_bytes)
    return [s if s.folder else replace(s, folder=main) for s in shards]


def _staging(plan: Plan, out: Path, shard_bytes: int) -> Path:
    """Named after all that decides about the bytes of the result."""
    from headstart.io.atomic import PART

    said = json.dumps(
        {
            "version": __version__,
            "method": [plan.method, plan.settings],
            "inputs": [_state(f) for f in plan.folders],
            "made": [_described(m) for m in plan.made],
            "seed": plan.seed,
            "shards": shard_bytes,
        },
        sort_keys=True,
        default=str,
    )
    return out.parent / f"{PART}{out.name[:40]}-{hashlib.sha256(said.encode()).hexdigest()[:12]}"


def _described(made: Made) -> list[Any]:
    """All that decides about the bytes of one tensor."""
    parts = [None if p is None else [p.model, p.name, p.dtype, _rows(p)] for p in (made.base, *made.tuned)]
    method = None if made.method is None else [catalogue.address(type(made.method)), catalogue.settings(made.method)]
    return [made.name, made.dtype, list(made.shape), parts, method]


def _rows(part: Part) -> list[Any] | None:
    return None if part.rows is None else [part.rows.tolist(), [[o.model, o.name, _rows(o)] for o in part.owners]]


def _state(folder: ModelFolder) -> list[Any]:
    """What tells that nobody changed the files since: their sizes and times."""
    files = sorted({e.file for e in folder.tensors.values()})
    stats = [f.stat() for f in files]
    return [
        str(folder.where),
        [[f.name, s.st_size, s.st_mtime_ns, s.st_ino] for f, s in zip(files, stats, strict=True)],
    ]


def _room_for(plan: Plan, out: Path, staging: Path) -> None:
    held = sum(f.stat().st_blocks * 512 for f in staging.rglob("*") if f.is_file()) if staging.is_dir() else 0
    free = shutil.disk_usage(out.parent).free
    if plan.bytes_written - held > free:
        raise OverBudget(
            f"the result has {plan.bytes_written / 1e9:.2f} GB, and the disk has {free / 1e9:.2f} GB left",
            where=f"`{out.parent}`",
            fix="free some space, choose another disk with --out, or a smaller type with --dtype bfloat16",
        )


@contextmanager
def _locked(staging: Path, out: Path) -> Iterator[None]:
    """Nobody else writes to the same place; unfinished merges into it that nobody works on are removed."""
    from headstart.io.atomic import PART, writing

    with writing(out.parent):
        for old in out.parent.glob(f"{PART}{glob_quoted(out.name[:40])}-" + "[0-9a-f]" * 12):
            if old != staging and old.is_dir() and _free(old, out):
                shutil.rmtree(old, ignore_errors=True)
        staging.mkdir(exist_ok=True)
        handle = os.open(staging / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _take(handle, out)
        yield
    finally:
        os.close(handle)


def _free(old: Path, out: Path) -> bool:
    """Whether an unfinished merge is nobody's work. Raises `Refused` where somebody writes to the same place now."""
    if not (old / LOCK).exists():
        return False
    handle = os.open(old / LOCK, os.O_RDWR)
    try:
        _take(handle, out)
    finally:
        os.close(handle)
    return True


def _take(handle: int, out: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise Refused(
            "another merge is writing to this folder", where=f"`{out}`", fix="wait for it, or choose another folder"
        ) from error


def glob_quoted(name: str) -> str:
    """
    >>> glob_quoted("a[1]")
    'a[[]1]'
    """
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _verify(staging: Path, plan: Plan) -> None:
    """Reads back what is there: every planned tensor, and no other, in its type and shape."""
    from headstart.io import model_folders
    from headstart.io.shards import folder_of

    said = {m.name: (m.dtype, m.shape) for m in plan.made}
    main = plan.donor.main
    for inner in {"", *map(folder_of, said)}:
        place = staging / (inner or main)
        found = {inner + n: v for n, v in model_folders.shapes(place).items()}
        wanted = {n: v for n, v in said.items() if folder_of(n) == inner}
        if found != wanted:
            odd = sorted(set(found.items()) ^ set(wanted.items()))[0][0]
            raise Unreadable(
                f"tensor `{odd}` is not on the disk as it was written",
                where=f"`{place}`",
                fix="merge again; if it happens again, check the disk",
            )


def _receipt(plan: Plan, threads: int, seconds: float) -> Receipt:
    import numba
    import torch

    by_rule = [{"how": how, "rule": rule, "tensors": n} for how, rule, n in counted({**plan.fates, **plan.lost})]
    return Receipt(
        step="merge",
        method=plan.method,
        settings=plan.settings,
        inputs=tuple(str(f.where) for f in plan.folders),
        seeds=(plan.seed,),
        threads=threads,
        versions={"headstart": __version__, "torch": torch.__version__, "numba": numba.__version__},
        seconds=round(seconds, 3),
        warnings=plan.warnings,
        facts={
            "base": str(plan.base.where) if plan.base else None,
            "models": [str(m.where) for m in plan.models],
            "states": [_state(f) for f in plan.folders],
            "labels": list(plan.labels) if plan.labels else None,
            "tensors": by_rule,
            "lost": [{"model": m, "tensor": t, "rule": f.rule} for (m, t), f in sorted(plan.lost.items())],
            "bytes": plan.bytes_written,
        },
    )


def _files(plan: Plan, staging: Path, receipt: Receipt) -> None:
    """The donor's configuration, tokenizer and preprocessor, and an account of the merge."""
    from headstart.io.atomic import dumps, writing
    from headstart.io.model_folders import carry

    donor = plan.donor
    with writing(staging):
        carry(donor, staging)
        for name, folder in plan.files.items():
            shutil.copyfile(folder.where / name, staging / name)
        for name, text in plan.texts.items():
            (staging / name).write_text(text, encoding="utf-8")
        if donor.config:
            (staging / donor.main / "config.json").write_text(dumps(config_of(plan)), encoding="utf-8")
        (staging / RECEIPT).write_text(receipt.json() + "\n", encoding="utf-8")
        (staging / "README.md").write_text(_card(plan), encoding="utf-8")


def config_of(plan: Plan) -> dict[str, Any]:
    """The donor's configuration with the labels and the type of the result."""
    config = {**plan.donor.config, **plan.config}
    if plan.labels is not None and plan.labels != plan.donor.labels:
        config["id2label"] = {str(i): label for i, label in enumerate(plan.labels)}
        config["label2id"] = {label: i for i, label in enumerate(plan.labels)}
        if "num_labels" in config:
            config["num_labels"] = len(plan.labels)
    if plan.dtype is not None:
        for key in ("dtype", "torch_dtype"):
            if key in config:
                config[key] = plan.dtype
    return config


def _card(plan: Plan) -> str:
    """A model card whose front matter says what the model comes from."""
    names = [f.name for f in plan.folders]
    lines = ["---", "base_model:", *(f"- {json.dumps(n)}" for n in names), "tags:", "- merge", "---", ""]
    lines += [f"# {plan.donor.name} and {len(plan.models) - 1} more, merged", ""]
    lines += [f"Merged by headstart {__version__} with `{plan.method}`: {_said(plan.settings)}.", ""]
    lines += ["| role | model |", "| --- | --- |"]
    lines += [f"| {'base' if f is plan.base else 'model'} | {_plain(f.name)} |" for f in plan.folders]
    return "\n".join([*lines, "", f"Every tensor is accounted for in `{RECEIPT}`.", ""])


def _said(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} {json.dumps(v)}" for k, v in settings.items()) or "no settings"


def _plain(text: str) -> str:
    """Text of somebody else in a table of Markdown."""
    return "".join(c if c.isalnum() or c in " -_./" else f"&#{ord(c)};" for c in text)
