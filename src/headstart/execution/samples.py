"""Data sets side by side: some rows of each, in one embedding, and what a divergence may see of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from headstart import catalogue
from headstart.core import Encoder, Needs, Problem, Refused, Resembling, Rows, Source, Target, Task, TaskType, Unfit
from headstart.io.cache import Cache
from headstart.io.images import RawRows
from headstart.numerics.plain_features import PLAIN_EMBEDDING, plain_features
from headstart.numerics.steps_table import is_number
from headstart.numerics.two_samples import some

from .parts import Part, dump_rows
from .run import Run
from .specs import Job, Outcome, canonical, source_to_dict
from .views import Opener, Pool, opener, undeclared

Array = np.ndarray[Any, Any]
Embedded = Mapping[str, Array]


@dataclass(frozen=True, eq=False, slots=True)
class DataSample:
    """Rows of one data set, with their features."""

    rows: Rows
    task: Task
    features: Array
    probe: pa.Table | None = None  # inputs that all data sets compared share
    opener: Opener | None = None

    def take(self, at: Sequence[int] | Array) -> DataSample:
        """These rows, in this order."""
        return replace(self, rows=self.rows.take([int(i) for i in at]), features=self.features[at])

    def seen_by(self, needs: Needs, method: str) -> GuardedSample:
        """This sample, for a method that may touch only what it declares."""
        return GuardedSample(self, needs, method)


class GuardedSample:
    """A `core.TaskSample`: a `DataSample` through the needs of one method."""

    def __init__(self, sample: DataSample, needs: Needs, method: str) -> None:
        self._sample, self._needs, self._method = sample, needs, method

    def __len__(self) -> int:
        return len(self._sample.rows)

    @property
    def task(self) -> TaskType:
        return self._sample.task.type

    @property
    def classes(self) -> int:
        return len(self._sample.task.classes)

    @property
    def texts(self) -> Sequence[str]:
        if self._needs.modalities != ("text",):
            raise undeclared("sample.texts", self._method, 'add `modalities=("text",)` to its needs')
        return RawRows(self._sample.rows.inputs).texts

    @property
    def features(self) -> Array:
        if "features" not in self._needs.gives:
            raise undeclared("sample.features", self._method, 'add "features" to `gives` of its needs')
        return self._sample.features

    @property
    def labels(self) -> Array | None:
        if not self._needs.labels:
            raise undeclared("sample.labels", self._method, "leave `labels=False` out of its needs")
        return self._sample.rows.labels

    @property
    def inputs(self) -> pa.Table:
        return self._sample.rows.inputs

    @property
    def content(self) -> Sequence[str]:
        return self._sample.rows.content

    @property
    def probe(self) -> pa.Table:
        return self._sample.rows.inputs if self._sample.probe is None else self._sample.probe

    @cached_property
    def encoder(self) -> Encoder:
        """A fresh copy, which notices the soft stop before each pass."""
        if "gradients" not in self._needs.gives:
            raise undeclared("sample.encoder", self._method, 'add "gradients" to `gives` of its needs')
        if self._sample.opener is None:
            raise Refused(
                f"`{self._method}` needs gradients, and was given no source",
                where="this comparison",
                fix="name a model with `--sources`",
            )
        from .fit import poll

        made = self._sample.opener.opened.encoder()
        made.module.register_forward_pre_hook(lambda *_: poll(0))
        return made


def every_row(dataset: Target) -> Rows:
    """All labelled rows of a data set to learn from, those that were put aside as its test included."""
    rows = dataset.labelled
    if not len(dataset.seal):
        return rows
    test = dataset.seal.open()
    labels = None
    if rows.labels is not None and test.labels is not None:
        labels = np.concatenate([rows.labels, test.labels])
    return Rows(
        rows.ids + test.ids,
        rows.content + test.content,
        rows.groups + test.groups,
        pa.concat_tables([rows.inputs, test.inputs], promote_options="permissive"),
        labels,
    )


def samples_of(
    part: Part,
    datasets: Sequence[Target],
    run: Run,
    *,
    sources: Sequence[Source],
    most: int,
    seed: int,
    gives: Sequence[str] = ("features",),
) -> tuple[list[DataSample | Problem], list[Rows], str, Source | None]:
    """The target's labelled rows and those of each data set in one embedding, at most `most` of each; a data set that
    cannot be compared is a `Problem` in its place. All rows of each data set; name and source of the embedding.

    sources: the first that can encode the target and gives what is asked is the embedding; without any, words, pixels
    or columns are.
    """
    target = part.target
    tasks = [target.task, *(d.task for d in datasets)]
    whole = [target.labelled]
    rows: list[Rows | Problem] = [_comparable(_some(target.labelled, most, seed), target, target)]
    for dataset in datasets:
        every = dataset.labelled
        try:
            if dataset.seal is target.seal:
                raise Refused("it is the target", where=f"data set `{dataset.name}`", fix="leave it out")
            every = every_row(dataset)
            rows.append(_comparable(_some(every, most, seed), dataset, target))
        except Problem as problem:
            rows.append(problem)
        whole.append(every)
    encoder: Source | None = None
    if sources:
        features, encoder = _encoded(part, rows, run, sources, gives)
        name = f"`{encoder.name}`"
    else:
        features, name = _plain(target, rows)
    found: list[DataSample | Problem] = []
    shared = rows[0].inputs if isinstance(rows[0], Rows) else None
    for held, task, made in zip(rows, tasks, features, strict=True):
        if isinstance(held, Problem):
            found.append(held)
        elif isinstance(made, Problem):
            found.append(made)
        else:
            found.append(DataSample(held, task, made, probe=shared))
    if isinstance(found[0], Problem):
        raise found[0]
    return found, whole[1:], name, encoder


def dumped_rows(run: Run, dataset: Target, target: Target, most: int) -> tuple[str, Rows]:
    """At most so many rows of a data set, in the form of the target's, and the folder below the run folder where they
    lie. Raises `Unfit` where they are of another modality, lack a column, or are no words where the target's are."""
    rows = _some(every_row(dataset), most, target.seed)
    if target.task.type != "tagging":
        rows = _comparable(rows, dataset, target)
    elif "tokens" not in rows.inputs.column_names:
        raise Unfit(
            "its rows are no lists of words, and the target's are",
            where=f"data set `{dataset.name}`",
            fix="give its texts as lists of words with a tag each, or leave it out",
        )
    return _dumped(run, rows, 0), rows


def embedded(
    part: Part,
    run: Run,
    source: Source,
    samples: Sequence[DataSample | Problem],
    methods: Mapping[str, Resembling],
) -> tuple[dict[str, list[Embedded | Problem]], list[float]]:
    """What each similarity makes of each sample, by jobs, and the seconds that each sample took.

    samples: as `samples_of` gave them, the target first.
    """
    at = [(name, i) for name in methods for i, one in enumerate(samples) if not isinstance(one, Problem)]
    jobs = [_embed_job(part, run, source, samples, i, methods[name]) for name, i in at]
    outcomes = dict(zip(at, run.do(jobs, "similarity"), strict=True))
    seconds = [sum(_took(outcomes[name, i]) for name in methods if (name, i) in outcomes) for i in range(len(samples))]
    found: dict[str, list[Embedded | Problem]] = {}
    for name in methods:
        found[name] = []
        for i, one in enumerate(samples):
            if isinstance(one, Problem):
                found[name].append(one)
                continue
            outcome = outcomes[name, i]
            if outcome.ok:
                with np.load(outcome.files / "embedding.npz", allow_pickle=False) as held:
                    found[name].append(dict(held))
            else:
                found[name].append(outcome.problem("it was compared", f"`{name}`"))
    return found, seconds


def _took(outcome: Outcome) -> float:
    """Seconds of a job, less what its process took to start, which the first data set is not to be charged."""
    return outcome.seconds - float(outcome.value.get("started", 0.0))


def _some(rows: Rows, most: int, seed: int) -> Rows:
    return rows.take(some(len(rows), most, seed).tolist())


def _comparable(rows: Rows, of: Target, target: Target) -> Rows:
    """The rows with the columns of the target's; `Unfit` where they are of another modality, or lack one."""
    where = f"data set `{of.name}`"
    if of.modality != target.modality:
        raise Unfit(
            f"it holds {of.modality}s, and the target {target.modality}s",
            where=where,
            fix=f"leave it out, or name its {target.modality} column",
        )
    if "tokens" in rows.inputs.column_names:  # data sets are compared by their texts, not by single words
        return replace(rows, inputs=pa.table({"text": pa.array(RawRows(rows.inputs).texts, pa.string())}))
    if target.modality != "table":
        return rows
    wanted, here = target.labelled.inputs, rows.inputs
    lacking = [
        n
        for n in wanted.column_names
        if n not in here.column_names or is_number(here[n].type) != is_number(wanted[n].type)
    ]
    if lacking:
        named = ", ".join(f"`{n}`" for n in lacking[:5]) + (" …" if len(lacking) > 5 else "")
        raise Unfit(
            f"it lacks {named} of the target's columns, or holds another type there",
            where=where,
            fix="rename its columns as in the target; tables are compared on the columns of the target",
        )
    columns = [(here[n].cast(pa.float64() if is_number(wanted[n].type) else pa.string())) for n in wanted.column_names]
    return replace(rows, inputs=pa.table(dict(zip(wanted.column_names, columns, strict=True))))


def _plain(target: Target, rows: Sequence[Rows | Problem]) -> tuple[list[Array | Problem], str]:
    held = [one for one in rows if isinstance(one, Rows)]
    inputs = [one.inputs for one in held]
    if target.modality == "text":  # pairs and tokens beside plain texts
        inputs = [pa.table({"text": pa.array(RawRows(one).texts, pa.string())}) for one in inputs]
    together = RawRows(pa.concat_tables(inputs, promote_options="permissive"))
    made = plain_features(together, target.modality, target.seed)
    parts = iter(np.split(made, np.cumsum([len(one) for one in held])[:-1]))
    return [one if isinstance(one, Problem) else next(parts) for one in rows], PLAIN_EMBEDDING[target.modality]


def _encoded(
    part: Part, rows: Sequence[Rows | Problem], run: Run, sources: Sequence[Source], gives: Sequence[str]
) -> tuple[list[Array | Problem], Source]:
    """Features by the first source that can encode the target's rows, and gives what is asked."""
    needs = Needs(gives=tuple(gives), labels=False)
    reasons: list[str] = []
    for source in sources:
        if reason := catalogue.refusal(needs, (source,), part.target):
            reasons.append(f"`{source.name}` {reason}")
            continue
        at = [i for i, one in enumerate(rows) if isinstance(one, Rows)]
        jobs = [_features_job(part, source, one, run, i) for i, one in enumerate(rows) if isinstance(one, Rows)]
        outcomes = dict(zip(at, run.do(jobs, "features"), strict=True))
        if not outcomes[0].ok:
            error = outcomes[0].error
            reasons.append(f"`{source.name}`: {error.what if error else outcomes[0].stopped or 'stopped'}")
            continue
        found: list[Array | Problem] = []
        with opener(source) as open_:
            assert open_ is not None
            for i, one in enumerate(rows):
                if isinstance(one, Problem):
                    found.append(one)
                elif outcomes[i].ok:
                    found.append(Pool.of_rows(open_, one, Cache(Path(part.cache))).take(one.ids))
                else:
                    found.append(outcomes[i].problem("it was compared", "its features"))
        return found, source
    raise Refused(
        f"no source can be the embedding ({'; '.join(reasons)})",
        where=f"the data sets for `{part.target.name}`",
        fix="leave --sources out, to compare without a model"
        if "gradients" not in gives
        else "name a model that can be trained with --sources, or leave out the methods that need gradients",
    )


def _dumped(run: Run, rows: Rows, number: int) -> str:
    """Folder of rows, named after them and their labels: another call in the same run may compare other ones."""
    labels = None if rows.labels is None else rows.labels.tolist()
    name = hashlib.sha256(canonical([rows.ids, labels]).encode()).hexdigest()[:16]
    return dump_rows(run, rows, f"dataset-{number}-{name}")


def _features_job(part: Part, source: Source, rows: Rows, run: Run, number: int) -> Job:
    spec = {
        "source": source_to_dict(source),
        "target": part.root,
        "rows": f"test:{_dumped(run, rows, number)}",
        "start": 0,
        "stop": len(rows),
        "cache": part.cache,
    }
    return Job("features", f"features of {source.name}", spec)


def _embed_job(
    part: Part, run: Run, source: Source, samples: Sequence[DataSample | Problem], number: int, method: Resembling
) -> Job:
    first, one = samples[0], samples[number]
    assert isinstance(first, DataSample)
    assert isinstance(one, DataSample)
    name = catalogue.name_of(method)
    spec = {
        "source": source_to_dict(source),
        "rows": _dumped(run, one.rows, number),
        "probe": _dumped(run, first.rows, 0),
        "task": {"type": one.task.type, "classes": list(one.task.classes)},
        "name": name,
        "settings": catalogue.settings(method),
        "cache": part.cache,
    }
    own = {name: method} if name.startswith("?") else {}
    return Job("embed", f"{name} of data set {number} by {source.name}", spec, methods=own)
