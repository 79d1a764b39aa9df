"""Jobs on a small table with a tiny encoder: what each leaves behind, and that it is the same however it is run."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from headstart import catalogue, execution
from headstart.core import METRICS, Budget, Columns, Folds, Rows, Seal, Source, Target, Task
from headstart.execution import jobs
from headstart.execution.run import Run
from headstart.execution.specs import Job, Outcome, chunks, source_from_dict, source_to_dict
from headstart.execution.views import drawn
from headstart.io import artifacts, targets
from headstart.numerics import moments
from headstart.numerics.artifacts import Head, Model, Table
from headstart.ranking import racing
from headstart.ranking.estimators.nmc import NMC
from headstart.ranking.similarity.attribution_similarity import AttributionSimilarity
from headstart.ranking.similarity.task2vec import Task2Vec
from headstart.testing.adaptation_routes import TinyEncoder
from headstart.testing.ranking_similarity import SeenTask

ROWS, COLUMNS = 60, 6
SOURCE = Source(
    name="tiny",
    kind="checkpoint",
    where="/nowhere",
    weights="tiny",
    identity="i",
    modality="table",
    gives=("features", "gradients", "weights"),
    facts={"width": 8},
)


class TinySource:
    def backend(self, dtype: str) -> str:
        return f"tiny-{dtype}"

    def loaded(self, dtype: str) -> TinySource:
        return self

    def features(self, inputs: pa.Table, dtype: str) -> np.ndarray[Any, Any]:
        encoder = TinyEncoder()
        batch = encoder.collate(inputs, range(inputs.num_rows))
        return encoder.forward_features(batch).detach().numpy()

    def encoder(self) -> TinyEncoder:
        return TinyEncoder()

    def close(self) -> None: ...


@contextmanager
def opened(source: Source) -> Iterator[TinySource]:
    yield TinySource()


def rows_of(seed: int, rows: int) -> Rows:
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % 3
    values = rng.normal(size=(rows, COLUMNS)) + labels[:, None]
    ids = tuple(f"{seed}-{i}" for i in range(rows))
    return Rows(ids, ids, ids, pa.table({f"c{j}": values[:, j] for j in range(COLUMNS)}), labels)


def target() -> Target:
    features = tuple((f"c{j}", "number") for j in range(COLUMNS))
    return Target(
        name="t",
        task=Task(type="single_label", classes=("a", "b", "c")),
        modality="table",
        metric=METRICS["accuracy"],
        columns=Columns(label="y", features=features),
        labelled=rows_of(0, ROWS),
        unlabelled=rows_of(1, 5),
        folds=Folds(kind="cv", k=5, of=(tuple((i // 3) % 5 for i in range(ROWS)),)),
        protocol="outer_cv",
        seal=Seal(lambda: pytest.fail("the seal was opened"), ids=(), content=(), groups=()),
        fingerprint="f",
    )


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    monkeypatch.setattr("headstart.io.sources.opened", opened)
    with execution.begin(tmp_path, Budget(), inputs={}, executor="in_process", show="none") as one:
        targets.dump(target(), one.folder / "target")
        targets.dump_rows(rows_of(2, 7), one.folder / "new")
        yield one


def spec(name: str, kind: str = "adaptation.routes", **more: Any) -> dict[str, Any]:
    source = source_to_dict(SOURCE) if kind == "adaptation.routes" else None
    given = {"kind": kind, "name": name, "settings": {}, "seed": 0, "source": source, "target": "target"}
    return {**given, "cells": [[0, 0], [0, 3]], "steps": {"horizon": 6}, "cache": "cache", **more}


def done(run: Run, verb: str, given: dict[str, Any]) -> Outcome:
    (outcome,) = run.do([Job(verb, verb, given)], "s")
    assert outcome.ok, outcome.error
    return outcome


def test_a_source_travels_as_json_values() -> None:
    assert source_from_dict(source_to_dict(SOURCE)) == SOURCE


def test_features_fill_the_cache_chunk_by_chunk(run: Run) -> None:
    given = {"source": source_to_dict(SOURCE), "target": "target", "rows": "labelled", "start": 0, "stop": ROWS}
    found = done(run, "features", {**given, "cache": "cache"})
    assert (found.value["rows"], found.value["width"]) == (ROWS, 8)
    (file,) = (run.folder / "cache").glob("*/*.npy")
    assert file.stem == found.value["chunks"][0]
    assert len(found.value["chunks"]) == len(chunks(0, ROWS, ROWS))
    np.testing.assert_array_equal(np.load(file), TinySource().features(drawn(target()).inputs, "float32"))
    assert done(run, "features", {**given, "rows": "test:new", "stop": 7, "cache": "cache"}).value["rows"] == 7
    assert found.value["pace"] > 0
    again = {**given, "stop": ROWS - 1, "cache": "cache"}  # another job, so that it is done
    assert done(run, "features", again).value["pace"] is None  # and reads nothing


def test_what_a_process_takes_to_start_is_told_apart(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "slow_library_of_tables.py").write_text("import time\ntime.sleep(0.3)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(jobs, "LIBRARIES", {"table": ("slow_library_of_tables",)})
    given = {"source": source_to_dict(SOURCE), "target": "target", "rows": "labelled", "start": 0, "cache": "cache"}
    first = done(run, "features", {**given, "stop": ROWS})
    assert 0.3 <= first.value["started"] < first.seconds
    again = done(run, "features", {**given, "rows": "test:new", "stop": 7})  # it has its libraries by now
    assert again.value["started"] < 0.1
    course = racing._Course()
    for outcome in (first, again):
        assert course.ended(SOURCE, outcome, 0.5)
    wanted = (first.seconds - first.value["started"] + again.seconds - again.value["started"]) / 2
    assert course.seconds == {SOURCE.identity: pytest.approx(wanted)}


def test_scores_are_of_the_first_rows_and_a_failure_costs_the_others_nothing(run: Run) -> None:
    estimators = [{"name": "nmc", "settings": {}}, {"name": "ridge_probe"}, {"name": "no_such_thing"}]
    given = {"source": source_to_dict(SOURCE), "target": "target", "upto": 45, "estimators": estimators}
    found = done(run, "score", {**given, "cache": "cache"})
    assert found.value["rows"] == 45
    assert set(found.value["scores"]) == {"nmc", "ridge_probe"}
    assert found.value["failed"]["no_such_thing"]["class"] == "Unfit"
    assert np.load(found.files / "losses-nmc.npy").shape == (45,)


def test_errors_of_scores_take_moments_of_each_row_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    take = moments._Sums.take

    def counted(sums: Any, features: Any, labels: Any) -> None:
        taken.append(len(features))
        take(sums, features, labels)

    monkeypatch.setattr(moments._Sums, "take", counted)
    estimators = [{"name": name} for name in ("cdnv", "gbc", "logme", "h_score")]
    given = {"source": source_to_dict(SOURCE), "target": "target", "upto": ROWS, "estimators": estimators}
    plain = done(run, "score", given).value
    assert plain["errors"] == {}
    passes = sum(taken)
    told = done(run, "score", {**given, "errors": True}).value
    assert sum(taken) == 2 * passes
    assert set(told["errors"]) == set(told["scores"]) == {"cdnv", "gbc", "logme", "h_score"}
    for name, score in plain["scores"].items():
        assert told["scores"][name] == pytest.approx(score, rel=1e-9)


@pytest.mark.parametrize("errors", [False, True])
def test_who_asks_for_gbc_alone_never_pays_for_a_gram_matrix(
    run: Run, monkeypatch: pytest.MonkeyPatch, errors: bool
) -> None:
    grams: list[bool] = []
    take = moments._Sums.take

    def watched(sums: Any, features: Any, labels: Any) -> None:
        take(sums, features, labels)
        grams.append(sums.gram is not None)

    monkeypatch.setattr(moments._Sums, "take", watched)

    def made(*names: str) -> set[bool]:
        grams.clear()
        estimators = [{"name": name} for name in names]
        given = {"source": source_to_dict(SOURCE), "target": "target", "upto": ROWS, "estimators": estimators}
        assert set(done(run, "score", {**given, "errors": errors}).value["scores"]) == set(names)
        return set(grams)

    assert made("gbc") == made("gbc", "cdnv") == {False}
    assert True in made("logme"), "what would have been seen"


def test_estimators_run_with_all_pools_of_threads_at_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """BLAS and OpenMP together: pools of several threads that take turns spin against each other."""
    pools: list[dict[str, int]] = []

    def now() -> dict[str, int]:
        return {pool["filepath"]: pool["num_threads"] for pool in threadpool_info()}

    score = NMC.__call__

    def watched(method: NMC, view: Any) -> Any:
        pools.append(now())
        return score(method, view)

    monkeypatch.setattr(NMC, "__call__", watched)
    given = {"source": source_to_dict(SOURCE), "target": "target", "upto": ROWS, "estimators": [{"name": "nmc"}]}
    with threadpool_limits(2):
        before = now()
        done(run, "score", given)
        (inside,), after = pools, now()
    assert {pool["user_api"] for pool in threadpool_info() if pool["filepath"] in before} >= {"blas", "openmp"}
    assert {name: (inside[name], after[name]) for name in before} == dict.fromkeys(before, (1, 2))


def test_a_likeness_to_a_plain_system_is_scored_with_one_fit_for_all_jobs(run: Run) -> None:
    estimators = [{"name": name} for name in ("cka", "rsa", "dds")]
    given = {"source": source_to_dict(SOURCE), "target": "target", "upto": ROWS, "estimators": estimators}
    first, again = (done(run, "score", {**given, "cache": "shared"}) for _ in range(2))
    assert set(first.value["scores"]) == {"cka", "rsa", "dds"}
    assert first.value["scores"] == again.value["scores"]
    assert all(-1 <= value <= 1 for value in first.value["scores"].values())
    tables = [np.load(path) for path in (run.folder / "shared").rglob("*.npy")]
    assert sorted(t.shape for t in tables) == [(ROWS, 3), (ROWS, 8)], "the reference, and the source's features"


def test_a_source_tells_of_the_labelled_rows_in_their_order(run: Run) -> None:
    given = {"source": source_to_dict(SOURCE), "target": "target", "gives": ["features"], "cache": "cache"}
    found = done(run, "tell", given)
    assert found.value["rows"] == ROWS
    inputs = target().labelled.inputs
    told, alone = np.load(found.files / "features.npy"), TinySource().features(inputs, "float32")
    np.testing.assert_allclose(told, alone, rtol=1e-4, atol=1e-6)  # portions of rows may round in another way


def test_a_probe_leaves_predictions_of_its_folds(run: Run) -> None:
    found = done(run, "fit", spec("linear_probe", keep=True))
    assert [(f["repeat"], f["fold"], f["rows"]) for f in found.value["folds"]] == [(0, 0, 12), (0, 3, 12)]
    valid = target().labelled.take(target().folds.sides(0, 3)[1])
    head = artifacts.read(found.files / "artifact-0-3")
    assert isinstance(head, Head)
    expected = head(TinySource().features(valid.inputs, "float32"))
    np.testing.assert_allclose(np.load(found.files / "pred-0-3.npy"), expected, rtol=1e-4, atol=1e-6)


def test_a_baseline_needs_no_source(run: Run) -> None:
    found = done(run, "fit", spec("majority", "adaptation.baselines", cells="all", test="new"))
    assert found.value["artifact"] == "artifact"
    table = np.load(found.files / "pred-test.npy")
    again = done(run, "predict", {"member": f"trials/{found.files.name}/artifact", "rows": "new"})
    assert isinstance(artifacts.read(found.files / "artifact"), Table)
    np.testing.assert_array_equal(np.load(again.files / "predictions.npy"), table)


def test_the_head_of_a_probe_predicts_new_rows_as_the_refit_did(run: Run) -> None:
    found = done(run, "fit", spec("linear_probe", cells="all", test="new"))
    member = {"member": f"trials/{found.files.name}/artifact", "rows": "new", "source": source_to_dict(SOURCE)}
    again = done(run, "predict", member)
    np.testing.assert_allclose(
        np.load(again.files / "predictions.npy"), np.load(found.files / "pred-test.npy"), rtol=1e-12
    )


def test_an_outer_fold_reads_the_features_of_its_root(run: Run) -> None:
    whole = target()
    some = [*range(0, ROWS, 2), 1]
    of = (tuple(whole.folds.of[0][i] for i in some),)
    part = Target(
        **{n: getattr(whole, n) for n in Target.__dataclass_fields__ if n not in ("labelled", "folds")},
        labelled=whole.labelled.take(some),
        folds=Folds(kind="cv", k=5, of=of),
    )
    targets.dump(part, run.folder / "part")
    done(run, "fit", spec("linear_probe"))
    before = sorted((run.folder / "cache").glob("*/*.npy"))
    done(run, "fit", spec("linear_probe", target="part", root="target"))
    assert sorted((run.folder / "cache").glob("*/*.npy")) == before


def test_a_later_rung_goes_on_where_the_earlier_stood(run: Run) -> None:
    whole = done(run, "fit", spec("full_finetune", steps={"horizon": 6}))
    first = done(run, "fit", spec("full_finetune", steps={"horizon": 6, "until": 0.5}, keep_state=True))
    state = f"trials/{first.files.name}"
    second = done(run, "fit", spec("full_finetune", steps={"horizon": 6}, state=state))
    for cell in ("0-0", "0-3"):
        a, b = (np.load(o.files / f"pred-{cell}.npy") for o in (whole, second))
        np.testing.assert_array_equal(a, b)


def test_a_soup_of_one_model_is_that_model(run: Run) -> None:
    one = done(run, "fit", spec("full_finetune", keep=True))
    other = done(run, "fit", spec("full_finetune", keep=True, seed=1))
    folders = [f"trials/{o.files.name}" for o in (one, other)]
    given = {"source": source_to_dict(SOURCE), "target": "target", "cells": [[0, 0], [0, 3]], "keep": True}
    alone = done(run, "soup", {**given, "members": [[folders[0]], [folders[0]]]})
    mixed = done(run, "soup", {**given, "members": [[folders[0]], [folders[1]]]})
    np.testing.assert_allclose(
        np.load(alone.files / "pred-0-3.npy"), np.load(one.files / "pred-0-3.npy"), rtol=1e-6
    )  # one rounding to float32
    models = [artifacts.read(o.files / "artifact-0-3") for o in (one, other, mixed)]
    a, b, c = (m.tensors["first.weight"].numpy() for m in models if isinstance(m, Model))
    np.testing.assert_allclose((a + b) / 2, c, rtol=1e-6)


def embedding(name: str) -> dict[str, Any]:
    task = {"type": "single_label", "classes": ["a", "b", "c"]}
    given = {"source": source_to_dict(SOURCE), "rows": "rows", "probe": "new", "task": task, "cache": "cache"}
    return {**given, "name": name, "settings": {"seed": 1}}


def test_an_embedding_of_a_task_is_the_methods_own(run: Run) -> None:
    rows, probe = rows_of(0, ROWS), rows_of(2, 7)
    targets.dump_rows(rows, run.folder / "rows")
    for method in (Task2Vec(seed=1), AttributionSimilarity(seed=1)):
        found = done(run, "embed", embedding(catalogue.name_of(method)))
        assert found.value["rows"] == ROWS
        task = SeenTask(
            needs=method.needs,
            given=np.stack([c.to_numpy() for c in rows.inputs.columns], axis=1),
            known=rows.labels,
            names=rows.content,
            shown=np.stack([c.to_numpy() for c in probe.inputs.columns], axis=1),
            source=TinyEncoder(),
            held=TinySource().features(rows.inputs, "float32"),
        )
        with np.load(found.files / "embedding.npz") as held:
            assert {k: v.tolist() for k, v in held.items()} == {k: v.tolist() for k, v in method.embed(task).items()}


def controlled(**said: Any) -> type[Run]:
    """A run whose jobs have a control that says this in place of its own."""

    class Controlled(Run):
        def _control(self, key: str, must: bool) -> Any:
            control = super()._control(key, must)
            for name, one in said.items():
                object.__setattr__(control, name, one)
            return control

    return Controlled


def test_an_embedding_stops_between_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.io.sources.opened", opened)
    asked: list[int] = []

    stopping = controlled(left=lambda: asked.append(1) or (0.0 if len(asked) > 20 else 1.0))
    monkeypatch.setattr("headstart.execution.run.Run", stopping)
    with execution.begin(tmp_path, Budget(), inputs={}, executor="in_process", show="none") as run:
        targets.dump_rows(rows_of(0, ROWS), run.folder / "rows")
        targets.dump_rows(rows_of(2, 7), run.folder / "new")
        (found,) = run.do([Job("embed", "e", embedding("gradient_similarity"))], "s")
    assert found.stopped == "time"
    assert not (found.files / "embedding.npz").exists()
    assert len(asked) < ROWS, "the rows after the stop were not looked at"


def test_a_soft_stop_leaves_the_folds_that_were_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.io.sources.opened", opened)
    seen: list[str] = []

    monkeypatch.setattr(
        "headstart.execution.run.Run",
        controlled(report=lambda task, text: seen.append(text), left=lambda: 0.0 if len(seen) > 8 else 1.0),
    )
    with execution.begin(tmp_path, Budget(), inputs={}, executor="in_process", show="none") as run:
        targets.dump(target(), run.folder / "target")
        (found,) = run.do([Job("fit", "f", spec("full_finetune"))], "s")
    assert (found.stopped, found.value["step"], len(found.value["folds"])) == ("time", 3, 1)
    assert (found.files / "pred-0-0.npy").exists()


def test_a_probe_says_in_which_fold_and_step_it_is_and_how_long_it_will_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.io.sources.opened", opened)
    seen: list[str] = []

    monkeypatch.setattr("headstart.execution.run.Run", controlled(report=lambda task, text: seen.append(text)))
    with execution.begin(tmp_path, Budget(), inputs={}, executor="in_process", show="none") as run:
        targets.dump(target(), run.folder / "target")
        run.do([Job("fit", "f", spec("linear_probe"))], "s")
    told = [re.fullmatch(r"fold (\d) of 2, step (\d+) of \d+, about \d+:\d\d to go", text) for text in seen]
    assert all(told), seen
    at = [(int(one[1]), int(one[2])) for one in told if one]
    assert at == sorted(at)
    assert {fold for fold, _ in at} == {1, 2}


def test_a_baseline_on_rows_never_loads_torch(run: Run) -> None:
    code = f"""
import sys
from pathlib import Path
from headstart.execution import jobs
from headstart.execution.specs import Job, Room
given = {spec("column_linear", "adaptation.baselines")!r}
room = Room(Path({str(run.folder)!r}) / "trials", Path({str(run.folder)!r}), lambda: False, print)
assert len(jobs.run(Job("fit", "f", given), room)["folds"]) == 2
assert not {{"torch", "transformers"}} & set(sys.modules), "loaded"
"""
    source = Path(execution.__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"})
