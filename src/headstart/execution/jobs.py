"""What each job does, in a worker or in this process: `run(job, room)`.

Specs (paths absolute, or relative to the run folder; `source` from `specs.source_to_dict`; `cache` a folder or None):

    features  {source, target, rows: "labelled" | "unlabelled" | "test:<folder of rows>", start, stop, cache, taps?,
               dtype?, racer?}
              fills the feature cache with the chunks that hold positions start…stop; labelled rows in draw order; taps:
              layers and poolings of the source, as sources, that are computed in place of it, in one pass for all;
              dtype: "float32", "bfloat16", "int8", "onnx", "onnx-int8", or "fastest" by the scores of the estimator
              `racer`. value {rows, width, chunks: [keys], dtype, probed: {seconds, scores, failed} by dtype, pace}
              pace: seconds a row, the source being in memory; null where all lay in the cache
    score     {source, target, root?, upto, estimators: [{name, settings}], cache, frozen?, errors?, dtype?}
              on the target's rows among the first `upto` of the draw order (of the root, where the target is an outer
              fold of one); frozen: score the rows after the first so many, by a fit on these; errors: of the scores.
              value {rows, scores: {name: value}, errors: {name: standard error}, failed: {name: error}}; files
              losses-NAME.npy. A target of tags is seen as its words (see `words`); rows and losses are of its
              sentences.
    tell      {source, target, root?, gives: ["features" | "predictions"], cache, own?: folder of rows}
              of the target's labelled rows, in their order, or of their words. value {rows}; files features.npy,
              predictions.npy, and own.npy, features of the rows in `own`
    embed     {source, rows: folder of rows, probe: folder of rows, task: {type, classes}, name, settings, cache}
              what a similarity makes of a task; probe: rows that all tasks compared share. value {rows};
              file embedding.npz
    fit       {kind, name, settings, seed, source | None, target, root?, cells: [[repeat, fold], …] | "all", steps,
               keep?, keep_state?, state?: folder of an earlier rung, test?: folder of rows, cache}
              value {folds: [{repeat, fold, rows, curve, fraction, facts}], artifact: "artifact" | None, lost: words
              of a target of tags that the source does not see}; files
              pred-R-F.npy in the order of the fold's rows; artifact/ for "all", artifact-R-F/ with keep, state-R-F/
              with keep_state; with "all", repeat and fold are None and pred-test.npy holds predictions of `test`.
    predict   {member: folder of a member or an artifact, source?, classes?, task?, rows: folder, cache?}
              value {rows, outputs}; file predictions.npy
    soup      {members: [[folders of an ingredient's fits], …], method?, settings?, source, target, cells, test?}
              as fit, from the models that fits with `keep` left

A soft stop raises `Halted`; a fit then still holds the folds that were whole. Rooms are imported where a job needs
them: a baseline on text never loads torch.
"""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from headstart import catalogue
from headstart.core import Fitted, Problem, Refused, Rows, Source, State, Steps, Target, Task, Unfit
from headstart.io import targets
from headstart.numerics.chunks import PARTS, standard_error

from .backends import fastest
from .specs import Halted, Job, Room, chunks, source_from_dict
from .views import FoldView, Pool, RankView, Store, drawn, first_rows, none_of, opener
from .words import Seen

if TYPE_CHECKING:
    from headstart.numerics.artifacts import Artifact, Model

Array = np.ndarray[Any, Any]
Cell = tuple[int, int] | None
LIBRARIES = {  # by modality, what every source is read with
    "text": ("transformers.modeling_utils", "transformers.models.auto.tokenization_auto"),
    "image": ("transformers.modeling_utils", "transformers.models.auto.image_processing_auto"),
}


def run(job: Job, room: Room) -> dict[str, Any]:
    """Do a job: JSON values come back, files lie in the room's folder."""
    with threadpool_limits(1) if _small(job) else nullcontext():
        return VERBS[job.verb](job.spec, room)


def _small(job: Job) -> bool:
    """Whether a job is arithmetic on small matrices: more threads than one cost such work more than they give.

    On a busy machine their pools spin against each other: a probe of 0.2 s took 3 s with two threads.
    """
    if job.verb == "fit":
        own = job.methods.get(job.spec["name"])
        needs = catalogue.entry(job.spec["kind"], job.spec["name"]).needs if own is None else own.needs
        return "gradients" not in needs.gives
    return job.verb == "score"


def _features(spec: Mapping[str, Any], room: Room) -> dict[str, Any]:
    target = targets.load(room.path(spec["target"]))
    source = source_from_dict(spec["source"])
    rows = _rows_named(spec["rows"], target, room)
    wanted = chunks(int(spec["start"]), int(spec["stop"]), len(rows))
    width, keys = source.facts.get("width"), []
    dtype, probed = spec.get("dtype", "float32"), dict[str, Any]()
    with opener(source) as open_:
        assert open_ is not None
        taps, store = [source_from_dict(tap) for tap in spec.get("taps", ())], _store(spec, room)
        started = _started("headstart.io.encoders")
        if dtype == "fastest":
            plain, dtype = Pool.of_rows(open_, rows, store), "float32"
            if not all(plain.holds(*span, taps) for span in wanted):  # what is at hand costs nothing
                started += _started(*LIBRARIES.get(source.modality, ()))
                dtype, probed = fastest(open_, target, rows, catalogue.make("ranking.estimators", spec["racer"]))
        pool = Pool.of_rows(open_, rows, store, dtype)
        computed = sum(b - a for a, b in wanted if not pool.holds(a, b, taps))
        if computed:
            started += _started(*LIBRARIES.get(source.modality, ()))
            open_.opened.loaded(dtype)  # so that the pace is that of rows alone
        begun = time.monotonic()
        for start, stop in wanted:
            if room.stop():
                raise Halted(start, {"rows": start, "started": started})
            room.report(f"rows {start}–{stop} of {len(rows)}")
            if taps:
                keys += pool.fill(start, stop, taps)
                continue
            width = pool.chunk(start, stop).shape[1]
            pool.release()
            keys.append(pool.key(start, stop))
    done, pace = sum(b - a for a, b in wanted), (time.monotonic() - begun) / computed if computed else None
    told = {"rows": done, "width": width, "chunks": keys, "dtype": dtype, "probed": probed, "pace": pace}
    return {**told, "started": started}


def _started(*modules: str) -> float:
    """Seconds that this process took to load libraries for all sources, which the first one is not to be charged."""
    begun = time.monotonic()
    for module in modules:
        importlib.import_module(module)
    return time.monotonic() - begun


def _score(spec: Mapping[str, Any], room: Room) -> dict[str, Any]:
    target = targets.load(room.path(spec["target"]))
    source = source_from_dict(spec["source"])
    first = drawn(_root(spec, target, room))
    scores: dict[str, float] = {}
    errors: dict[str, float] = {}
    failed: dict[str, dict[str, str]] = {}
    with opener(source) as open_:
        assert open_ is not None
        pool = Pool.of_rows(open_, first, _store(spec, room), spec.get("dtype", "float32"))
        at = {name: i for i, name in enumerate(target.labelled.ids)}
        rows = target.labelled.take([at[name] for name in first.ids[: int(spec["upto"])] if name in at])
        seen = Seen(first_rows(target, rows, spec.get("frozen")), open_, pool)
        assert seen.pool is not None
        parts = PARTS if spec.get("errors") else 1
        view = RankView(seen.target, seen.target.labelled, seen.pool, _store(spec, room), parts)
        for number, one in enumerate(spec["estimators"]):
            if room.stop():
                raise Halted(number, {"rows": len(rows), "scores": scores, "errors": errors, "failed": failed})
            name = one["name"]
            room.report(name)
            try:
                method = _method("ranking.estimators", name, one.get("settings", {}), room)
                guarded = view.seen_by(method.needs, name)
                score = method(guarded)
                groups = seen.target.labelled.groups
                error = standard_error(method, guarded, score, groups) if spec.get("errors") else None
            except Problem as problem:
                failed[name] = problem.as_dict()
                continue
            scores[name] = float(score.value)
            if error is not None:
                errors[name] = error
            if score.losses is not None:
                np.save(room.folder / f"losses-{name}.npy", seen.by_row(np.asarray(score.losses, dtype=np.float64)))
    return {"rows": len(rows), "scores": scores, "errors": errors, "failed": failed}


def _tell(spec: Mapping[str, Any], room: Room) -> dict[str, Any]:
    target = targets.load(room.path(spec["target"]))
    rows = target.labelled
    with opener(source_from_dict(spec["source"])) as open_:
        assert open_ is not None
        pool = Pool.of_labelled(open_, _root(spec, target, room), _store(spec, room))
        for gift in spec["gives"]:
            told = pool.take(rows.ids) if gift == "features" else pool.predictions(rows)
            np.save(room.folder / f"{gift}.npy", told)
        if spec.get("own"):
            own = targets.load_rows(room.path(spec["own"]))
            np.save(room.folder / "own.npy", Pool.of_rows(open_, own, _store(spec, room)).take(own.ids))
    return {"rows": len(rows)}


def _embed(spec: Mapping[str, Any], room: Room) -> dict[str, Any]:
    from .samples import DataSample

    rows, probe = (targets.load_rows(room.path(spec[name])) for name in ("rows", "probe"))
    source = source_from_dict(spec["source"])
    started = _started("headstart.io.encoders", *LIBRARIES.get(source.modality, ()))
    method = _method("ranking.similarity", spec["name"], spec.get("settings", {}), room)
    task = Task(type=spec["task"]["type"], classes=tuple(spec["task"]["classes"]))
    if task.type not in method.needs.tasks:
        raise Refused(
            f"`{spec['name']}` does not work on a {task.type.replace('_', '-')} task",
            where="the similarities asked for",
            fix="see `headstart methods ranking.similarity` for the tasks of each",
        )
    with opener(source) as open_, _stoppable("ranking.similarity", room, []):
        assert open_ is not None
        features = Pool.of_rows(open_, rows, _store(spec, room)).take(rows.ids)
        sample = DataSample(rows, task, features, probe.inputs, open_)
        np.savez(room.folder / "embedding.npz", **method.embed(sample.seen_by(method.needs, spec["name"])))
    return {"rows": len(rows), "started": started}


def _fit(spec: Mapping[str, Any], room: Room) -> dict[str, Any]:
    target = targets.load(room.path(spec["target"]))
    method = _method(spec["kind"], spec["name"], spec.get("settings", {}), room)
    steps = Steps(**spec.get("steps", {}))
    source = source_from_dict(spec["source"]) if spec.get("source") else None
    scored = targets.load_rows(room.path(spec["test"])) if spec.get("test") else None
    store = _store(spec, room)
    folds: list[dict[str, Any]] = []
    with opener(source) as open_, _stoppable(spec["kind"], room, folds, len(_cells(spec))):
        seen = Seen(target, open_, None if open_ is None else Pool.of_labelled(open_, _root(spec, target, room), store))
        for cell in _cells(spec):
            if room.stop():
                raise Halted(0, {"folds": folds})
            view = FoldView(
                seen.target,
                cell,
                needs=method.needs,
                method=spec["name"],
                seed=int(spec.get("seed", 0)),
                opener=open_,
                pool=seen.pool,
                store=store,
                scored=scored,
            )
            state = _read_state(room.path(spec["state"]) / _named("state", cell)) if spec.get("state") else None
            fitted: Fitted = method(view, state, steps)
            fitted = replace(fitted, predictions=seen.told(fitted.predictions, cell))
            folds.append(_saved(fitted, cell, len(view.valid), spec, room))
    return {"folds": folds, "artifact": "artifact" if spec["cells"] == "all" else None, "lost": seen.lost}


def _predict(spec: Mapping[str, Any], room: Room) -> dict[str, Any]:
    from headstart.io.member_files import is_member

    rows = targets.load_rows(room.path(spec["rows"]))
    member = room.path(spec["member"])
    predictions = _by_member(member, rows) if is_member(member) else _by_artifact(member, rows, spec, room)
    return _predicted(np.asarray(predictions, dtype=np.float64), room)


def _soup(spec: Mapping[str, Any], room: Room) -> dict[str, Any]:
    from headstart.numerics.soups import soup

    from .fit import features

    target = targets.load(room.path(spec["target"]))
    merge = catalogue.make("combination.merging", spec.get("method", "uniform_soup"), **spec.get("settings", {}))
    folds: list[dict[str, Any]] = []
    with (
        opener(source_from_dict(spec["source"])) as open_,
        _stoppable("adaptation.routes", room, folds, len(_cells(spec))),
    ):
        assert open_ is not None
        for cell in _cells(spec):
            if room.stop():
                raise Halted(0, {"folds": folds})
            models = [_model(one, cell, room) for one in spec["members"]]
            encoder = open_.opened.encoder()
            made = soup(encoder.module.state_dict(), models, merge, int(spec.get("seed", 0)))
            encoder.module.load_state_dict(made.tensors)
            scored = targets.load_rows(room.path(spec["test"])) if spec.get("test") else None
            valid = _valid(target, cell, scored)
            predictions = made.head(features(encoder, valid.inputs))
            folds.append(_saved(Fitted(made, predictions), cell, len(valid), spec, room))
    return {"folds": folds, "artifact": "artifact" if spec["cells"] == "all" else None}


VERBS: dict[str, Callable[[Mapping[str, Any], Room], dict[str, Any]]] = {
    "features": _features,
    "score": _score,
    "tell": _tell,
    "embed": _embed,
    "fit": _fit,
    "predict": _predict,
    "soup": _soup,
}


def _method(kind: str, name: str, settings: Mapping[str, Any], room: Room) -> Any:
    return room.methods[name] if name in room.methods else catalogue.make(kind, name, **settings)


def _store(spec: Mapping[str, Any], room: Room) -> Store | None:
    if not spec.get("cache"):
        return None
    from headstart.io.cache import Cache

    return Cache(room.path(spec["cache"]))


def _root(spec: Mapping[str, Any], target: Target, room: Room) -> Target:
    """The target whose draw order and feature chunks are used: itself, or the one it is an outer fold of."""
    root = spec.get("root") or spec["target"]
    return target if root == spec["target"] else targets.load(room.path(root))


def _rows_named(name: str, target: Target, room: Room) -> Rows:
    kind, _, folder = name.partition(":")
    if kind == "labelled":
        return drawn(target)
    if kind == "unlabelled":
        return target.unlabelled
    if kind == "test" and folder:
        return targets.load_rows(room.path(folder))
    raise Unfit(f"no rows are called `{name}`", where="a features job", fix="labelled, unlabelled or test:<folder>")


def _cells(spec: Mapping[str, Any]) -> list[Cell]:
    return [None] if spec["cells"] == "all" else [(int(r), int(f)) for r, f in spec["cells"]]


def _named(what: str, cell: Cell) -> str:
    return what if cell is None else f"{what}-{cell[0]}-{cell[1]}"


def _valid(target: Target, cell: Cell, scored: Rows | None) -> Rows:
    if cell is not None:
        return target.labelled.take(target.folds.sides(*cell)[1])
    return none_of(target.labelled) if scored is None else scored


@contextmanager
def _stoppable(kind: str, room: Room, folds: list[dict[str, Any]], many: int = 1) -> Iterator[None]:
    """Let the training loop see the soft stop and say how far it is; what it stopped at becomes `Halted`.

    folds: those that are done, of so many.
    """
    if kind not in ("adaptation.routes", "ranking.similarity"):
        yield
        return
    from .fit import PROGRESS, STOP, Stopped

    begun = time.monotonic()

    def told(step: int, of: int) -> None:
        room.report(_how_far(len(folds), many, step, of, time.monotonic() - begun))

    stop, progress = STOP.set(room.stop), PROGRESS.set(told)
    try:
        yield
    except Stopped as at:
        raise Halted(at.step, {"folds": folds}) from at
    finally:
        STOP.reset(stop)
        PROGRESS.reset(progress)


def _how_far(folds: int, many: int, step: int, of: int, seconds: float) -> str:
    """Where a fitting is, and about how long it will still take at its pace so far.

    >>> _how_far(1, 5, 18, 36, 30.0)
    'fold 2 of 5, step 18 of 36, about 1:10 to go'
    """
    from .progress import clock

    done = (folds + step / max(of, 1)) / many
    fold = f"fold {folds + 1} of {many}, " if many > 1 else ""
    left = f", about {clock(seconds / done - seconds)} to go" if done > 0 else ""
    return f"{fold}step {step} of {of}{left}"


def _saved(fitted: Fitted, cell: Cell, rows: int, spec: Mapping[str, Any], room: Room) -> dict[str, Any]:
    """Write what a fitting made; gives the line of its fold."""
    if cell is not None or spec.get("test"):
        name = "pred-test" if cell is None else _named("pred", cell)
        np.save(room.folder / f"{name}.npy", np.asarray(fitted.predictions, dtype=np.float64))
    if cell is None or spec.get("keep"):
        from headstart.io import artifacts

        artifacts.write(_with_base(fitted.artifact, spec), room.folder / _named("artifact", cell))
    if spec.get("keep_state") and fitted.state is not None:
        _write_state(fitted.state, room.folder / _named("state", cell))
    return {
        "repeat": None if cell is None else cell[0],
        "fold": None if cell is None else cell[1],
        "rows": rows,
        "curve": [list(point) for point in fitted.curve],
        "fraction": fitted.fraction,
        "facts": dict(fitted.facts),
    }


def _with_base(artifact: Artifact, spec: Mapping[str, Any]) -> Artifact:
    """A delta says which weights it changes; an encoder need not know them, and the job does."""
    from headstart.numerics.artifacts import Delta

    return replace(artifact, base=spec["source"]["weights"]) if isinstance(artifact, Delta) else artifact


def _write_state(state: State, folder: Path) -> None:
    from safetensors.torch import save_file

    folder.mkdir()
    save_file({name: t.contiguous() for name, t in state.tensors.items()}, folder / "state.safetensors")
    (folder / "state.json").write_text(json.dumps({"step": state.step, "facts": dict(state.facts)}), encoding="utf-8")


def _read_state(folder: Path) -> State | None:
    """Where an earlier rung stood, None where it left nothing to go on with."""
    if not (folder / "state.json").exists():
        return None
    from safetensors.torch import load_file

    said = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    return State(int(said["step"]), load_file(folder / "state.safetensors"), said["facts"])


def _model(fits: Sequence[str], cell: Cell, room: Room) -> Model:
    """What one ingredient left for a cell, in whichever of its fits had that cell."""
    from headstart.io import artifacts
    from headstart.numerics.artifacts import Model

    places = [room.path(name) / _named("artifact", cell) for name in fits]
    folder = next((place for place in places if place.is_dir()), None)
    if folder is None:
        raise Unfit(
            f"no model was kept for {'all rows' if cell is None else f'repeat {cell[0]}, fold {cell[1]}'}",
            where=", ".join(f"`{name}`" for name in fits),
            fix="fit the ingredients with `keep`, on the cells of the soup",
        )
    artifact = artifacts.read(folder)
    if not isinstance(artifact, Model):
        raise Unfit(
            f"a soup is made of whole models, and this is a {type(artifact).__name__}",
            where=f"`{folder}`",
            fix="use fine-tunes that change all weights, kept with `keep`",
        )
    return artifact


def _by_artifact(folder: Path, rows: Rows, spec: Mapping[str, Any], room: Room) -> Array:
    """Predictions of an artifact that is not a member yet: a table, or what was fitted on a source."""
    from headstart.io import artifacts, images
    from headstart.numerics import steps
    from headstart.numerics.artifacts import Head, Table

    artifact: Artifact = artifacts.read(folder)
    if isinstance(artifact, Table):
        return steps.apply(artifact, images.RawRows(rows.inputs))
    if not spec.get("source"):
        raise Unfit("this artifact predicts with its source only", where=f"`{folder}`", fix="give the source")
    source = source_from_dict(spec["source"])
    if isinstance(artifact, Head):
        with opener(source) as open_:
            assert open_ is not None
            return artifact(Pool.of_rows(open_, rows, _store(spec, room)).take(rows.ids))
    return _as_member(source, artifact, rows, spec, room)


def _as_member(source: Source, artifact: Any, rows: Rows, spec: Mapping[str, Any], room: Room) -> Array:
    from headstart.io import members

    folder = room.folder / "member"
    members.save_adapted(source, artifact, folder, classes=tuple(spec["classes"]), task=spec["task"])
    return _by_member(folder, rows)


def _by_member(folder: Path, rows: Rows) -> Array:
    from headstart.io import members

    return np.asarray(members.open_member(folder)(rows.inputs))


def _predicted(predictions: Array, room: Room) -> dict[str, Any]:
    np.save(room.folder / "predictions.npy", predictions)
    return {"rows": predictions.shape[0], "outputs": predictions.shape[1]}
