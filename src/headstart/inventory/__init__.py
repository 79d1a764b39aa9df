"""Inventory: the bank of sources and past runs, and what it recalls for a new target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from headstart.core import Known, Modality, PastTrials, Problem, Rows, Source, Target, TaskType

if TYPE_CHECKING:
    import numpy as np

    from headstart.io.cache import Cache
    from headstart.numerics.pools import Pool
    from headstart.numerics.records import Records

    from .contamination import Trained
    from .decisions import Answering
    from .files import Damage
    from .imports import Imported, Origin
    from .maps import Mapped
    from .recall import Past, Recalled
    from .records import Cost, ProxyScore, Run, Trial

    Array = np.ndarray[Any, Any]


class Inventory:
    """A bank: a SQLite file by default, one that is named, or a PostgreSQL server by its URL.

    location: None for `$HEADSTART_HOME/bank.db`, else the user's data folder. A missing file is begun, an older one is
    brought to this version. Several processes may use one bank at once.
    Errors: `Refused` for a newer version or a network file system, `Unreadable` for a damaged or read-only file.
    """

    def __init__(self, location: str | Path | None = None) -> None:
        from . import database
        from .location import is_url, prepared_file, server_url

        if isinstance(location, str) and is_url(location):
            self._database = database.open_server(server_url(location))
            self.file: Path | None = None
        else:
            self.file = prepared_file(location)
            self._database = database.open_file(self.file)
        self.where = self._database.where

    def __repr__(self) -> str:
        return f"Inventory({self.where.removeprefix('the bank ').strip('`')!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the file; the next call opens it again."""
        self._database.close()

    # -- sources -----------------------------------------------------------------------------------------------------

    def add(self, path: str | Path) -> tuple[list[Source], list[tuple[str, Problem]]]:
        """Puts every source of a folder (or `hub:org/name@revision`) on the shelf; those that cannot be read are
        listed with their problem, and cost the others nothing."""
        from headstart.io.places import hash_folder
        from headstart.io.sources import scan

        from .files import unreadable

        found, failed = scan(str(path), cache=hash_folder())
        added, failed = [], list(failed)
        for source in found:
            try:
                self.add_source(source)
            except OSError as error:  # a file that vanished, or cannot be read, between the scan and now
                failed.append((source.name, unreadable(source, error)))
            else:
                added.append(source)
        return added, failed

    def add_source(self, source: Source) -> None:
        """Puts one source on the shelf; the newest folder of an identity is the one that counts."""
        from headstart.io.places import hash_folder

        from . import shelf

        shelf.add(self._database, source, hash_folder())

    def sources(self, modality: Modality | None = None) -> list[Source]:
        """What is on the shelf, in the order in which it came."""
        from . import shelf

        return shelf.listed(self._database, modality)

    def show(self, wanted: str) -> Source:
        """The source of this id, beginning of an id, or name."""
        from . import shelf

        return shelf.found(self._database, wanted)

    def remove(self, wanted: str) -> Source:
        """Takes a source off the shelf, by id or name; files and records stay."""
        from . import shelf

        return shelf.remove(self._database, wanted)

    def verify(self) -> list[Damage]:
        """Reads every source again; those whose files are missing or changed, with the names of the files."""
        from . import shelf
        from .files import damage

        found = (damage(source, files) for source, files in shelf.listed_with_files(self._database))
        return [one for one in found if one is not None]

    # -- readings of sources -------------------------------------------------------------------------------------------

    def map(
        self, sources: Sequence[Source], base: Source, rows: Rows, *, most: int = 2000
    ) -> tuple[list[Mapped], list[tuple[str, Problem]]]:
        """Fits and keeps a map from the base's features to each source's, on rows without labels; see `ranking.maps`.

        A source that cannot be mapped is listed with its problem, and costs the others nothing. rows: as
        `inspection.read_unlabelled` gives them; most: so many of them. Raises `Unfit` below 50 different rows.
        """
        from . import maps

        return maps.made(self._database, sources, base, rows, most)

    def maps(self, base: Source, sources: Sequence[Source] | None = None) -> Iterator[Mapped]:
        """The newest map from this base to each source, one in memory at a time; sources: of these alone.

        Raises `Refused` where there is none from this base: the same weights pooled or cut in another way are another.
        """
        from . import maps

        return maps.kept(self._database, base, None if sources is None else [s.identity for s in sources])

    def ask(
        self, sources: Sequence[Source], rows: Rows, others: Mapping[str, Answering] | None = None
    ) -> tuple[list[str], list[tuple[str, Problem]]]:
        """Asks sources with a head about probes, once, and keeps what each decides, for `recall` by `know2vec`.

        rows: the probes, the same for all sources that are to be compared; no label is read. others: black boxes by the
        name that records have for them, each a function from an Arrow table of inputs to (rows, classes) shares or
        (rows,) names of classes. Those that answered, sources by identity and black boxes by name; and those that did
        not, each with its problem. Raises `Unfit` below 30 different probes.
        """
        from . import decisions

        return decisions.asked(self._database, sources, others or {}, rows)

    def sample(self, source: Source, rows: Rows, encoder: Source, *, most: int = 100, centres: bool = False) -> int:
        """Keeps what a source was trained on as an encoder sees it, for `recall_experts`; how many instances.

        rows: of the source's training data; no label is read, and no row is kept. centres: means of clusters of five
        rows at least take the place of single rows. Raises `Unfit` below 20 different rows.
        """
        from . import instances

        return instances.sample(self._database, source, rows, encoder, most, centres=centres)

    def instances(self, encoder: Source, sources: Sequence[Source]) -> dict[str, Array]:
        """(I, D) features by this encoder of what each source was trained on, by identity; of those that have some."""
        from . import instances

        return instances.kept(self._database, encoder, sources)

    # -- targets and runs --------------------------------------------------------------------------------------------

    def record_target(self, target: Target, signature: Array | None = None) -> None:
        """Keeps a target's description, row hashes by role, and signature; what is known already stays."""
        from . import records

        records.record_target(self._database, target, signature)

    def record_run(
        self,
        run: Run,
        *,
        trials: Sequence[Trial] = (),
        scores: Sequence[ProxyScore] = (),
        costs: Sequence[Cost] = (),
    ) -> bool:
        """Keeps a finished run, all of it or nothing; False when this id is known, so it may be called again.

        A run that was cut and went on takes the place of what was kept of it.
        """
        from . import records

        return records.record_run(self._database, run, trials, scores, costs)

    def runs(self, target: str | None = None) -> list[dict[str, Any]]:
        """Finished runs as JSON values, oldest first; of one target by its fingerprint, or of all."""
        from . import records

        return records.runs(self._database, target)

    def opened(self, test: str) -> int:
        """How many runs have opened this test, by `records.fingerprint_of_test`."""
        from . import records

        return records.opened(self._database, test)

    def count_opening(self, test: str, run: str) -> int:
        """Notes that a run opens this test, once however often it is resumed; returns how many runs have."""
        from . import records

        return records.count_opening(self._database, test, run)

    # -- transfers -----------------------------------------------------------------------------------------------------

    def import_records(self, path: str | Path) -> Imported:
        """Keeps records of runs that were made elsewhere, all of the file or nothing; again, and nothing is added."""
        from . import imports

        return imports.import_records(self._database, path)

    def origins(self) -> list[Origin]:
        """What was imported, by origin."""
        from . import imports

        return imports.origins(self._database)

    def transfers(
        self,
        method: str,
        metric: str,
        *,
        origin: str = "headstart",
        model: str | None = None,
        where: Mapping[str, Any] | None = None,
        task_type: TaskType | None = None,
        modality: Modality | None = None,
    ) -> Records:
        """How sources did on past targets, as `numerics.records.Records`: this bank's own runs, or one origin's.

        model, where: of imported records, those of one model and of these settings, such as `{"lr": 0.01}`.
        """
        from . import transfers

        return transfers.transfers(
            self._database,
            method,
            metric,
            origin=origin,
            model=model,
            where=where,
            task_type=task_type,
            modality=modality,
        )

    def past_trials(self, target: Target, method: str) -> PastTrials:
        """Trials of one route on past targets of this one's task, modality and metric, the target's own left out."""
        from . import transfers

        found = transfers.past_trials(self._database, method, target.metric.name, target.task.type, target.modality)
        kept = [i for i, fingerprint in enumerate(found.targets) if fingerprint != target.fingerprint]
        return PastTrials(tuple(found.targets[i] for i in kept), tuple(found.trials[i] for i in kept))

    def embed(self, target: Target, encoder: Source) -> Array:
        """(12,) of the target's labelled rows as `numerics.anchor_fisher` places a task, by an encoder; it is kept."""
        from . import tasks

        return tasks.embedded(self._database, target, encoder)

    def known(
        self,
        past: Sequence[str],
        target: Target,
        values: Array | None = None,
        sources: Sequence[str] = (),
        encoder: Source | None = None,
    ) -> Known:
        """How alike a new target is to past ones, by their fingerprints; values: its own figures, if any.

        sources: identities or names; with them, what those that were asked decide is told too. encoder: similarities
        are those of tasks as `embed` kept them by it, in place of signatures, which are of rows.
        """
        from dataclasses import replace

        from . import decisions, recall, tasks, transfers

        signature = recall.signature_of(target) if encoder is None else None
        if encoder is not None:
            found = tasks.known(self._database, past, target, encoder, values)
        elif signature is not None:
            found = transfers.known(self._database, past, signature, target.modality, values)
        else:
            found = Known(values=values)
        return replace(found, vectors=decisions.vectors(self._database, sources))

    def pools(self, target: Target, method: str) -> list[Pool]:
        """What estimators said of sources on past targets of this one's task, modality and metric, the target's own
        left out, and what came of them by one route: this bank's own runs."""
        from . import pools

        return pools.own(self._database, target, method)

    def imported_pools(
        self, origin: str, method: str, metric: str, where: Mapping[str, Any] | None = None
    ) -> list[Pool]:
        """The same of what was imported of one origin; where: settings that records must have."""
        from . import pools

        return pools.imported(self._database, origin, method, metric, where)

    # -- what solve reads --------------------------------------------------------------------------------------------

    def trained_rows(self, sources: Sequence[Source]) -> dict[str, Trained]:
        """Rows that each source has learned from, its ancestors' included, by its id."""
        from . import contamination

        return contamination.trained_rows(self._database, sources)

    def contamination(self, sources: Sequence[Source], content: Sequence[str]) -> dict[str, int]:
        """How many of these (test) rows each source has learned from, by its id."""
        learned = self.trained_rows(sources)
        return {name: sum(row in one.rows for row in content) for name, one in learned.items()}

    def recall(self, signature: Array, task_type: TaskType, modality: Modality) -> list[Recalled]:
        """Past targets of this task type and modality, most similar first, with the best sources there."""
        from . import recall

        return recall.recall(self._database, signature, task_type, modality)

    def similar(self, target: Target) -> list[Past]:
        """Past targets that look like this one, most similar first, with what was tried there and how it ended.

        Raises `Refused` for a modality whose targets have no signature.
        """
        from . import recall

        signature = recall.signature_of(target)
        if signature is None:
            raise recall.unsigned(target.modality)
        return recall.similar(self._database, signature, target.task.type, target.modality)

    def snapshot(
        self, target: Target, sources: Sequence[Source] | None = None, signature: Array | None = None
    ) -> dict[str, Any]:
        """All that `solve` reads from the bank for this target, as JSON values for the journal; a resumed run reads
        this again, and not the bank.

        sources: those at hand, else the shelf's of the target's modality. Keys: bank, version, sources (documents:
        `documents.source_of` reads them), recalled, order (ids, best prospects first), marks, test, openings.
        """
        from . import contamination, recall, records
        from .database import BANK_VERSION
        from .documents import dump, load, source_document

        at_hand = list(self.sources(target.modality) if sources is None else sources)
        recalled = [] if signature is None else self.recall(signature, target.task.type, target.modality)
        outer = target.protocol == "outer_cv"
        rows = target.labelled.content if outer else target.seal.content
        test = records.fingerprint_of_test(target)
        found = {
            "bank": self.where.removeprefix("the bank ").strip("`"),
            "version": BANK_VERSION,
            "sources": [source_document(source) for source in at_hand],
            "recalled": [one.as_dict() for one in recalled],
            "order": [source.id for source in recall.order(at_hand, recalled)],
            "marks": contamination.marks(self.trained_rows(at_hand), rows, outer=outer).as_dict(),
            "test": test,
            "openings": self.opened(test),
        }
        return dict(load(dump(found), self.where))

    def feature_cache(self, folder: str | Path, limit_bytes: float = float("inf")) -> Cache:
        """A cache of arrays in this folder, with its index in the bank; close it to have its uses noted."""
        from headstart.io.cache import Cache

        from .feature_cache import FeatureIndex

        return Cache(folder, limit_bytes, index=FeatureIndex(self._database, str(folder)))
