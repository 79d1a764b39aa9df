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
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart import __version__, catalogue
from headstart.core import OverBudget, Problem, Receipt, Refused, Routed, Unreadable
from headstart.io.shards import SHARD_BYTES

from .accounts import by_rule
from .ancestry import weights_of
from .layouts import Found, bytes_on_disk, expected, files_of, storage
from .plans import DTYPES, Plan, counted

if TYPE_CHECKING:
    from headstart.io.atomic import Twin
    from headstart.io.model_folders import ModelFolder
    from headstart.io.safetensors_files import Entry
    from headstart.io.shards import Shard
    from headstart.numerics.made import Made, Part, Reads

LOCK = ".lock"
RECEIPT = "merge.json"
TOLD = frozenset({"choice", "searched"})  # how a plan was found, with its seconds; what was found is in the plan itself
Report = Callable[[int, int], bool]  # bytes that are done, and bytes in all; False stops


def write(
    plan: Plan, out: Path, *, shard_bytes: int = SHARD_BYTES, threads: int | None = None, overwrite: bool = False,
    check: bool = True, load: bool = False, report: Report | None = None,
) -> Receipt:  # fmt: skip
    """The merged model as a new folder. Raises `Stopped` when report asks to stop; what was done is kept for the next
    call. check: the folder appears only if all tensors have their places in transformers' class, and none is missing;
    load: and if transformers loads it and it runs.

    Raises `Refused` where the folder holds something, `OverBudget` where the disk has too little room, `Unreadable`
    where the result would not load, before anything is written.
    """
    from headstart.execution.meter import cores
    from headstart.io import adapted, atomic, shards
    from headstart.numerics import stream

    began = time.perf_counter()
    check_loadable(plan, check=check, load=load)
    layout = files_of(plan, shard_bytes)
    atomic.refuse_occupied(out, overwrite=overwrite)
    atomic.refuse_own_source(out, read_in(plan))
    with atomic.writing(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
    identity = fingerprint(plan)
    staging = _staging(identity, out, shard_bytes)
    how = atomic.twins(out.parent) if plan.apart else "link"
    _room_for(bytes_on_disk(plan, how), out, staging)
    with _locked(staging, out, overwrite=overwrite):
        try:
            with ExitStack() as stack:
                readers = [stack.enter_context(adapted.reader(f)) for f in plan.folders]
                writer = stack.enter_context(shards.ShardWriter(staging, layout))
                total, ready = plan.bytes_written, sum(m.bytes for m in plan.made if m.name in writer.done)
                told = [ready]

                def tell(more: int) -> bool:
                    told[0] += more
                    return report is None or report(told[0], total)

                crew = threads or cores()
                odd = _odd(_written(plan, staging, layout, writer.done))  # by an earlier call
                odd |= stream.run(
                    plan.made, readers, writer, done=writer.done, seed=plan.seed, threads=crew, report=tell
                )
                notes = _not_finite(plan, readers, odd)
                writer.complete()
                notes += _below_zero(_written(plan, staging, layout, [m.name for m in plan.made]))
            _verify(staging, plan)
            _files(plan, staging)
            fits = _checked(plan, staging) if check else []
            loaded = _loaded(plan, staging, out) if load else []
            receipt = _receipt(plan, identity, crew, time.perf_counter() - began, how, fits, loaded, notes)
            with atomic.writing(staging):
                (staging / RECEIPT).write_text(receipt.json() + "\n", encoding="utf-8")
            with atomic.writing(staging):
                atomic.sync_tree(staging)
            with atomic.writing(out.parent), _alone(out.parent):
                atomic.swap_in(staging, out)
                _protect(out, layout, how)
                (out / LOCK).unlink()  # held until now: nobody begins in the folder while it moves
                atomic.sync(out.parent)
        except Problem:
            shutil.rmtree(staging, ignore_errors=True)
            raise
    return receipt


def read_in(plan: Plan) -> list[Path]:
    """The folders of the models, and of adapters on them."""
    return [place for f in plan.folders for place in (f.where, f.adapter) if place is not None]


def fingerprint(plan: Plan) -> str:
    """Of all that decides about the bytes of the weights, but how they are spread over files."""
    said = {
        "version": __version__,
        "method": [plan.method, plan.settings],
        "inputs": [_state(f) for f in plan.folders],
        "made": [_described(m) for m in plan.made],
        "seed": plan.seed,
        "learned": {name: found for name, found in plan.learned.items() if name not in TOLD},
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()


def _staging(identity: str, out: Path, shard_bytes: int) -> Path:
    """Named after all that decides about the bytes of the result."""
    from headstart.io.atomic import PART

    said = f"{identity} {shard_bytes}"
    return out.parent / f"{PART}{out.name[:40]}-{hashlib.sha256(said.encode()).hexdigest()[:12]}"


def _described(made: Made) -> list[Any]:
    """All that decides about the bytes of one tensor."""
    parts = [None if p is None else [p.model, p.name, p.dtype, _rows(p)] for p in (made.base, *made.tuned)]
    method = None if made.method is None else [catalogue.address(type(made.method)), said_of(made.method)]
    return [made.name, made.dtype, list(made.shape), parts, method, made.depth]


def said_of(method: Any) -> dict[str, Any]:
    """Settings; of what was learned from rows, the plan says it."""
    return catalogue.settings(method) if is_dataclass(method) else {}


def _rows(part: Part) -> list[Any] | None:
    if part.rows is None:
        return None
    rows = hashlib.sha256(part.rows.tobytes()).hexdigest()
    return [rows, part.padded, [[o.model, o.name, _rows(o)] for o in part.owners]]


def _state(folder: ModelFolder) -> list[Any]:
    """What tells that nobody changed the files since: their sizes and times."""
    files = sorted({e.file for e in folder.tensors.values()})
    files += sorted(folder.adapter.iterdir()) if folder.adapter is not None else []
    stats = [f.stat() for f in files]
    return [
        folder.address,
        [[f.name, s.st_size, s.st_mtime_ns, s.st_ino] for f, s in zip(files, stats, strict=True)],
    ]


def _room_for(needed: int, out: Path, staging: Path) -> None:
    files = [f.stat() for f in staging.rglob("*") if f.is_file()] if staging.is_dir() else []
    held = sum({s.st_ino: s.st_blocks * 512 for s in files}.values())
    free = shutil.disk_usage(out.parent).free
    if needed - held > free:
        raise OverBudget(
            f"the result has {needed / 1e9:.2f} GB, and the disk has {free / 1e9:.2f} GB left",
            where=f"`{out.parent}`",
            fix="free some space, choose another disk with --out, or a smaller type with --dtype bfloat16",
        )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One merge at a time begins or ends in a folder, so that no two of them find a place in it free."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some file systems lock no folders
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def _locked(staging: Path, out: Path, *, overwrite: bool) -> Iterator[None]:
    """Nobody else writes to the same place; unfinished merges into it that nobody works on are removed."""
    from headstart.io.atomic import PART, refuse_occupied, writing

    with writing(out.parent), _alone(out.parent):
        refuse_occupied(out, overwrite=overwrite)
        for old in out.parent.glob(f"{PART}{glob_quoted(out.name[:40])}-" + "[0-9a-f]" * 12):
            if old != staging and old.is_dir() and _free(old, out):
                shutil.rmtree(old, ignore_errors=True)
        staging.mkdir(exist_ok=True)
        handle = os.open(staging / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _take(handle, out)
        except Refused:
            os.close(handle)
            raise
    try:
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

    for inner, wanted in expected(plan).items():
        found = model_folders.shapes(staging / inner)
        if found != wanted:
            odd = sorted(set(found.items()) ^ set(wanted.items()))[0][0]
            raise Unreadable(
                f"tensor `{odd}` is not on the disk as it was written",
                where=f"`{staging / inner}`",
                fix="merge again; if it happens again, check the disk",
            )


def _written(plan: Plan, staging: Path, layout: Sequence[Shard], names: Collection[str]) -> dict[str, Entry]:
    """Where tensors lie on the disk."""
    from headstart.io.safetensors_files import Entry

    places = {n: (staging / s.path, at) for s in layout for n, at in s.places.items()}
    written = [(m, *places[m.name]) for m in plan.made if m.name in names]
    return {m.name: Entry(m.name, m.dtype, m.shape, file, at, at + m.bytes) for m, file, at in written}


def _odd(written: dict[str, Entry]) -> set[str]:
    """Those that hold numbers which are not finite."""
    from headstart.io.shards import Checkpoint

    with Checkpoint(written) as own:
        return {n for n, e in written.items() if not _finite(own, n, e.dtype, e.end - e.start)}


def _below_zero(written: dict[str, Entry]) -> list[str]:
    """What to say of running variances that are none: the model's class takes their roots."""
    import numpy as np
    import torch

    from headstart.io.shards import Checkpoint
    from headstart.numerics.made import FLOATS

    found, variances = [], {n: e for n, e in written.items() if n.endswith("running_var")}
    with Checkpoint(variances) as own:
        for name, entry in variances.items():
            held = np.empty(entry.end - entry.start, np.uint8)
            own.read(name, 0, held)
            if bool((torch.from_numpy(held).view(FLOATS[entry.dtype]) < 0).any()):
                found.append(name)
    if not found:
        return []
    return [
        f"{len(found)} running variances fell below 0 in some entries, such as `{found[0]}`: what the model gives is "
        "no number until a pass over data renews them; merge at a smaller scale, or renew them"
    ]


def _not_finite(plan: Plan, readers: Sequence[Reads], odd: Collection[str]) -> list[str]:
    """What to say of tensors with such numbers, and whose they are."""
    first = next((m for m in plan.made if m.name in odd), None)
    if first is None:
        return []
    whose = []
    for part in (first.base, *first.tuned):
        if part is not None:
            entry = plan.folders[part.model].tensors[part.name]
            if not _finite(readers[part.model], part.name, part.dtype, entry.end - entry.start):
                whose.append(f"`{plan.folders[part.model].name}`")
    why = f"it is so in {', '.join(whose)}" if whose else "it is so in no model, the merge made them"
    what = "hold, or are made of, numbers that are not finite"
    return [f"{len(odd)} of {len(plan.made)} tensors {what}, such as `{first.name}`: {why}"]


def _finite(reader: Reads, name: str, dtype: str, size: int) -> bool:
    import numpy as np

    from headstart.numerics.made import TILE, all_finite

    room = np.empty(min(size, TILE), dtype=np.uint8)
    for start in range(0, size, TILE):
        piece = room[: min(TILE, size - start)]
        reader.read(name, start, piece)
        if not all_finite(piece, dtype):
            return False
    return True


def _protect(out: Path, layout: Sequence[Shard], how: Twin) -> None:
    """A file that several models share is for reading: whoever saves into one of their folders must replace it."""
    for shard in layout:
        if shard.also and how == "link":
            (out / shard.path).chmod(0o444)


def check_loadable(plan: Plan, *, check: bool = True, load: bool = False) -> None:
    """Raises before anything is written: `Unreadable` for what would not load whole, and with load `Refused` for what
    transformers has no class of.
    """
    from headstart.io.load_check import checked
    from headstart.io.loading import class_of

    wanted = expected(plan) if check else {}
    for place, model, labels in plan.results:
        if load:
            class_of(model.config, f"model `{model.name}`")
        if check:
            tensors, own = wanted[place + model.main], (model.config, _shapes(model))
            checked(config_of(plan, model, labels), tensors, own, f"a merge with the files of `{model.name}`")


def _checked(plan: Plan, staging: Path) -> list[dict[str, Any]]:
    """Of every model that was written, what the files say now: whether transformers would load it whole."""
    from headstart.io import model_folders
    from headstart.io.load_check import checked
    from headstart.io.safe_files import read_json

    told = []
    for place, model, _ in plan.results:
        folder = staging / place / model.main
        config, own = read_json(folder, "config.json"), (model.config, _shapes(model))
        found = checked(config, model_folders.shapes(folder), own, f"`{place or '.'}` of the result")
        told.append({"folder": place.rstrip("/") or ".", **asdict(found), "unused": list(found.unused)})
    return told


def _shapes(model: ModelFolder) -> Found:
    """(type, shape) of each tensor of a model's main part."""
    return {n: (e.dtype, e.shape) for n, e in model.tensors.items() if "/" not in n}


def _loaded(plan: Plan, staging: Path, out: Path) -> list[dict[str, Any]]:
    """What transformers makes of every model that was written."""
    from headstart.io.loading import tried

    told = []
    for place, model, labels in plan.results:
        config = config_of(plan, model, labels)
        found = tried(staging / place / model.main, config, len(labels) if labels else None, out / place)
        shapes = {name: list(shape) for name, shape in found.outputs.items()}
        told.append({"folder": place.rstrip("/") or ".", **asdict(found), "outputs": shapes})
    return told


def _receipt(
    plan: Plan, identity: str, threads: int, seconds: float, how: Twin, fits: Sequence[Mapping[str, Any]],
    loaded: Sequence[Mapping[str, Any]], notes: Sequence[str],
) -> Receipt:  # fmt: skip
    import numba
    import torch

    counts = [{"how": how, "rule": rule, "tensors": n} for how, rule, n in counted({**plan.fates, **plan.lost})]
    return Receipt(
        step="merge",
        method=plan.method,
        settings=plan.settings,
        inputs=tuple(f.address for f in plan.folders),
        seeds=(plan.seed,),
        threads=threads,
        versions={"headstart": __version__, "torch": torch.__version__, "numba": numba.__version__},
        seconds=round(seconds, 3),
        warnings=(*plan.warnings, *notes),
        facts={
            "base": plan.base.address if plan.base else None,
            "base_weights": weights_of(plan.base) if plan.base else None,
            "models": [m.address for m in plan.models],
            "states": [_state(f) for f in plan.folders],
            "labels": list(plan.labels) if plan.labels else None,
            "vocabulary": plan.words.facts if plan.words is not None else None,
            "tensors": counts,
            "fates": by_rule(plan),
            "learned": plan.learned,
            "alike": plan.alike or None,
            "lost": [{"model": m, "tensor": t, "rule": f.rule} for (m, t), f in sorted(plan.lost.items())],
            "bytes": bytes_on_disk(plan, how),
            "plan": identity,
            "folders": folders_of(plan),
            "shared_by": how if plan.apart else None,
            "storage": _storage(plan),
            "checked": list(fits),
            "loaded": list(loaded),
        },
    )


def _storage(plan: Plan) -> dict[str, Any] | None:
    """What parts that stay apart take, beside the bytes of all models whole."""
    if plan.routed is None:
        return None
    apart, models = storage(plan), sum(m.bytes for m in plan.models)
    share = (plan.bytes_written + sum(apart.values())) / models
    return {"shared": plan.bytes_written, **apart, "models": models, "share": round(share, 6)}


def folders_of(plan: Plan) -> list[dict[str, Any]]:
    """Where the models that are made lie below the result, and their labels."""
    return [
        {"folder": place.rstrip("/") or ".", "model": model.name, "labels": list(labels) if labels else None}
        for place, model, labels in plan.results
    ]


def _files(plan: Plan, staging: Path) -> None:
    """The configuration, tokenizer and preprocessor of each model that is made, and a card."""
    from headstart.io.atomic import dumps, writing
    from headstart.io.model_folders import carry

    with writing(staging):
        for place, model, labels in plan.results:
            changes = plan.words.changes.get(model.name) if plan.words is not None else None
            carry(model, staging / place, without=changes.left if changes is not None else ())
            if changes is not None:
                _brought(changes.files, changes.texts, staging / place)
            if model.config:
                config = dumps(config_of(plan, model, labels))
                (staging / place / model.main / "config.json").write_text(config, encoding="utf-8")
        if plan.routed is not None:
            _parts(plan, plan.routed, staging)
        _brought({}, plan.texts, staging)
        (staging / "README.md").write_text(_card(plan), encoding="utf-8")


def _brought(files: Mapping[str, Path], texts: Mapping[str, str], place: Path) -> None:
    """Files of others, and texts of their own; by their names below the place."""
    for name, path in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place / name)
    for name, text in texts.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text, encoding="utf-8")


def _parts(plan: Plan, routed: Routed, staging: Path) -> None:
    """What stays apart, beside the folders of the models."""
    from headstart.io import routing_files

    heads = {
        place: [n.removeprefix(f"{place}/").removeprefix(m.main) for n in names]
        for (place, names), m in zip(plan.apart.items(), plan.models, strict=True)
    }
    routing_files.write(
        staging, method=plan.method, settings=plan.settings, heads=heads, names=[m.name for m in plan.models],
        routed=routed,
    )  # fmt: skip


def config_of(plan: Plan, model: ModelFolder, labels: tuple[str, ...] | None) -> dict[str, Any]:
    """A model's configuration with the labels and the type of the result."""
    changes = plan.words.changes.get(model.name) if plan.words is not None else None
    config = {**model.config, **(changes.config if changes is not None else {}), **plan.config}
    if labels is not None and labels != model.labels:
        config["id2label"] = {str(i): label for i, label in enumerate(labels)}
        config["label2id"] = {label: i for i, label in enumerate(labels)}
        if "num_labels" in config:
            config["num_labels"] = len(labels)
    dtype = plan.dtype or _other_type(plan, model)
    if dtype is not None:
        for key in ("dtype", "torch_dtype"):
            if key in config:
                config[key] = dtype
    return config


def _other_type(plan: Plan, model: ModelFolder) -> str | None:
    """In which most numbers of the result are written, as of a base in other bits; None where the model's own are."""
    made, own = _most((m.dtype, m.size) for m in plan.made), _most((e.dtype, e.size) for e in model.tensors.values())
    return None if made == own else {v: k for k, v in DTYPES.items()}.get(made)


def _most(counts: Iterable[tuple[str, int]]) -> str:
    """
    >>> _most([("F32", 5), ("BF16", 3), ("BF16", 3), ("I64", 9)])
    'BF16'
    """
    total = dict.fromkeys(DTYPES.values(), 0)
    for dtype, size in counts:
        if dtype in total:
            total[dtype] += size
    return max(total, key=total.__getitem__)


def _card(plan: Plan) -> str:
    """A model card whose front matter says what the model comes from."""
    names = list(dict.fromkeys(f.name for f in plan.folders))  # slices name a model more than once
    base = plan.base.name if plan.base is not None else None
    lines = ["---", "base_model:", *(f"- {json.dumps(n)}" for n in names), "tags:", "- merge", "---", ""]
    heads = ", each with its own head" if plan.apart else ""
    lines += [f"# {plan.donor.name} and {len(plan.models) - 1} more, merged{heads}", ""]
    lines += [f"Merged by headstart {__version__} with `{plan.method}`: {_said(plan.settings, len(plan.models))}.", ""]
    lines += ["| role | model |", "| --- | --- |"]
    lines += [f"| {'base' if name == base else 'model'} | {_plain(name)} |" for name in names]
    if plan.apart:
        lines += ["", "| folder | head of |", "| --- | --- |"]
        lines += [f"| {_plain(p)} | {_plain(m.name)} |" for p, m in zip(plan.apart, plan.models, strict=True)]
    if plan.routed is not None:
        lines += ["", "What each task keeps beside the shared body is in `routing/`: `headstart predict` adds it."]
    return "\n".join([*lines, "", f"Every tensor is accounted for in `{RECEIPT}`.", ""])


def _said(settings: Mapping[str, Any], models: int) -> str:
    """
    >>> _said({"weights": [], "normalize": True}, 3), _said({"scale": 0.3, "weights": [], "rules": []}, 3)
    ('weights 1/3 each, normalize true', 'scale 0.3, weights 1 each')
    """
    equal = f"1/{models} each" if settings.get("normalize") and models > 1 else "1 each"
    told = {k: v for k, v in settings.items() if v != [] or k == "weights"}
    return ", ".join(f"{k} {equal if v == [] else json.dumps(v)}" for k, v in told.items()) or "no settings"


def _plain(text: str) -> str:
    """Text of somebody else in a table of Markdown."""
    return "".join(c if c.isalnum() or c in " -_./" else f"&#{ord(c)};" for c in text)
