"""Data sets in the order in which they lie near a target: planted ones, what is read of them, and real ones."""

from __future__ import annotations

import csv
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart import execution
from headstart.core import Budget, Needs, Refused, Rows, Source, Target, Task, TaskSample, Undeclared, Unfit, Unreadable
from headstart.execution import alone
from headstart.execution.progress import Progress
from headstart.execution.samples import DataSample, every_row
from headstart.inspection import read_datasets, read_target
from headstart.ranking.datasets import Near, rank_datasets

DATA = Path(__file__).parents[3] / "shared/data"
WORDS = {
    "films": ["film", "plot", "actor", "scene", "director", "cast", "script", "screen", "drama", "comedy"],
    "music": ["song", "album", "singer", "guitar", "band", "film", "plot", "voice", "drama", "tune"],
    "cards": ["card", "bank", "payment", "refund", "account", "fee", "transfer", "pin", "limit", "cash"],
}
MOODS = {"good": ("great", "fine"), "bad": ("awful", "dull")}


@dataclass(frozen=True, kw_only=True)
class Depth:
    """A similarity that is in no catalogue: by the size of the encoder's first weight."""

    needs = Needs(gives=("features", "gradients"))
    claims = ()
    cites = "none"

    power: float = 1.0

    def embed(self, sample: TaskSample) -> dict[str, Any]:
        return {"size": next(sample.encoder.module.parameters()).detach().norm().numpy() ** self.power}

    def __call__(self, source: Mapping[str, Any], target: Mapping[str, Any]) -> float:
        return 1 - float(abs(source["size"] - target["size"]))


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Jobs run in this process, with a cache of their own."""
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(alone, "begin", partial(execution.begin, executor="in_process"))


def texts(file: Path, theme: str, rows: int = 60, seed: int = 0) -> Path:
    draw = random.Random(f"{theme}{seed}")
    with file.open("w", newline="", encoding="utf-8") as held:
        writer = csv.writer(held)
        writer.writerow(["text", "label"])
        for at in range(rows):
            mood = list(MOODS)[at % 2]
            said = [draw.choice(WORDS[theme]) for _ in range(6)] + [draw.choice(MOODS[mood])]
            draw.shuffle(said)
            writer.writerow([" ".join(said), mood])
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "sets"
    made.mkdir()
    for theme in ("cards", "films", "music"):
        texts(made / f"{theme}.csv", theme, seed=1)
    return made


def ranked(target: Target, folder: Path, **more: Any) -> tuple[Near, ...]:
    return rank_datasets(target, read_datasets(folder, label=target.columns.label)[0], Budget(), **{"draws": 3, **more})


def test_the_planted_order_is_found(folder: Path, tmp_path: Path) -> None:
    found = ranked(read_target(texts(tmp_path / "target.csv", "films")), folder)
    assert [one.dataset.name for one in found] == ["films", "music", "cards"]
    assert found[0].nearest == 1.0
    assert found[0].rank == 1.0
    assert found[0].receipt is not None
    assert found[0].receipt.facts["draws"] == 3
    assert list(found[0].divergences) == ["otdd", "frechet", "mmd", "proxy_a", "jensen_shannon"]


@pytest.mark.parametrize(("rows", "warned"), [(4, True), (20, False)])
def test_a_target_of_few_rows_is_ranked_with_a_warning(folder: Path, tmp_path: Path, rows: int, warned: bool) -> None:
    target = read_target(texts(tmp_path / "target.csv", "films", rows))
    target = replace(target, labelled=every_row(target))
    found = ranked(target, folder, method="mmd", draws=1)
    said = [one.receipt.warnings for one in found if one.receipt]
    few = "the target has 4 labelled rows, and the order hangs on each: with 20 or more it means something"
    assert said == 3 * [(few,) if warned else ()]


def test_how_far_it_is_is_told(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int]] = []
    monkeypatch.setattr(Progress, "stage", lambda self, name, total=0: seen.append((name, total)))
    ranked(read_target(texts(tmp_path / "target.csv", "films")), folder, method="mmd", draws=2)
    assert seen == [("compare", 3), ("draw half the rows", 2)]


@dataclass(frozen=True, kw_only=True)
class Starting:
    """A divergence that is in no catalogue, and whose first call in a process loads what all need."""

    needs = Needs(gives=("features",))
    claims = ()
    cites = "none"

    started: list[float]

    def __call__(self, source: TaskSample, target: TaskSample) -> float:
        if not self.started:
            self.started.append(1000.0)
        return float(len(source))


def test_the_first_data_set_is_not_charged_for_what_loads(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.execution.meter import Meter

    loading: list[float] = []
    monkeypatch.setattr(Meter, "session", lambda self: sum(loading))
    found = ranked(read_target(texts(tmp_path / "target.csv", "films")), folder, method=Starting(started=loading))
    assert loading == [1000.0]
    assert [one.seconds for one in found] == [0.0, 0.0, 0.0]


def test_the_first_task_that_is_embedded_is_not_charged_for_libraries(
    folder: Path, tmp_path: Path, shelf: list[Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.execution import jobs

    target = read_target(texts(tmp_path / "target.csv", "films"))
    charged = {}
    for loading in (0.0, 1000.0):
        monkeypatch.setattr(jobs, "_started", lambda *_, took=loading: took)
        found = ranked(target, folder, method=TRAINED[:1], sources=shelf, rows=20)
        charged[loading] = [one.seconds for one in found]
    assert min(charged[0.0]) > 0
    assert max(charged[1000.0]) < -900, "seconds of loading are taken from what the job took"


def test_the_same_call_gives_the_same_figures(folder: Path, tmp_path: Path) -> None:
    target = read_target(texts(tmp_path / "target.csv", "films"))
    one, two = (ranked(target, folder, rows=40) for _ in range(2))
    assert [dict(n.divergences) for n in one] == [dict(n.divergences) for n in two]
    assert [n.nearest for n in one] == [n.nearest for n in two]


def test_rows_of_the_target_are_counted_and_its_seal_stays_shut(folder: Path, tmp_path: Path) -> None:
    target = read_target(
        texts(tmp_path / "target.csv", "films"), test=str(texts(tmp_path / "test.csv", "films", 20, seed=5))
    )
    rows = (tmp_path / "target.csv").read_text().splitlines()
    test = (tmp_path / "test.csv").read_text().splitlines()
    (folder / "copies.csv").write_text("\n".join([*rows[:11], *test[1:6]]) + "\n")
    held = {one.dataset.name: one for one in ranked(target, folder, method="mmd")}
    assert held["copies"].rows == 15
    assert held["copies"].shared_test == len(set(test[1:6]))
    assert held["copies"].shared == len({*rows[1:11], *test[1:6]})
    assert held["cards"].shared == 0
    assert target.seal.opened == 0


def test_all_rows_of_a_data_set_are_read_its_test_included(tmp_path: Path) -> None:
    target = read_target(texts(tmp_path / "a.csv", "films", 40), test=str(texts(tmp_path / "b.csv", "films", 20, 1)))
    whole = every_row(target)
    assert len(whole) == len(target.labelled) + len(target.seal)
    assert len(set(whole.ids)) == len(whole)
    assert whole.labels is not None
    assert len(whole.labels) == len(whole) == whole.inputs.num_rows


def test_what_cannot_be_read_or_compared_costs_itself_alone(folder: Path, tmp_path: Path) -> None:
    (folder / "notes.csv").write_text("")
    (folder / "numbers.csv").write_text("area,label\n" + "\n".join(f"{i},{i * 3.7}" for i in range(30)))
    (folder / "unclear.csv").write_text("a,b\n1,2\n3,4\n")
    (folder / ".hidden").write_text("x")
    found, failed = read_datasets(folder)
    assert [name for name, _ in failed] == ["notes.csv", "unclear.csv"]
    assert "`label`, or `kind`" in read_datasets(folder, label="kind")[1][1][1].fix
    target = read_target(texts(tmp_path / "target.csv", "films"))
    last = rank_datasets(target, found, Budget(), draws=1)[-1]
    assert (last.dataset.name, last.rank) == ("numbers", None)
    assert last.error is not None
    assert "it holds tables, and the target texts" in last.error.what
    with pytest.raises(Refused, match="no data set can be compared"):
        rank_datasets(target, [read_target(folder / "numbers.csv")], Budget())
    with pytest.raises(Unreadable, match="not a folder"):
        read_datasets(folder / "films.csv")


def test_pairs_and_tokens_are_compared_with_texts_by_their_words_alone(folder: Path, tmp_path: Path) -> None:
    """A column that only some sets have would else put a word into the texts of all others."""
    lines = (tmp_path / "sets" / "films.csv").read_text().splitlines()[1:]
    halves = [(line.rsplit(",", 1)[0].split(), line.rsplit(",", 1)[1]) for line in lines]
    pairs = [f"{' '.join(words[:3])},{' '.join(words[3:])},{mood}" for words, mood in halves]
    (folder / "pairs.csv").write_text("\n".join(["premise,hypothesis,label", *pairs]))
    spelt = ["".join(f"{word} {'B-X' if word == 'film' else 'O'}\n" for word in words) for words, _ in halves]
    (folder / "tokens.conll").write_text("\n".join(spelt))
    target = read_target(texts(tmp_path / "target.csv", "films"))
    held = {one.dataset.name: one for one in ranked(target, folder, method=("frechet", "jensen_shannon"))}
    for name in ("pairs", "tokens"):
        assert held[name].divergences["jensen_shannon"] == held["films"].divergences["jensen_shannon"]
        # pairs of words across the break of a pair are the only other ones
        assert held[name].divergences["frechet"] == pytest.approx(held["films"].divergences["frechet"], rel=0.05)


def test_a_link_to_nowhere_costs_itself_alone(folder: Path) -> None:
    (folder / "gone.csv").symlink_to("nowhere")
    found, failed = read_datasets(folder, apart_from=folder / "films.csv")
    assert [one.name for one in found] == ["cards", "music"]
    assert [name for name, _ in failed] == ["gone.csv"]


def test_the_target_itself_is_left_out(folder: Path) -> None:
    found, _ = read_datasets(folder, apart_from=folder / "films.csv")
    assert [one.name for one in found] == ["cards", "music"]


def test_a_divergence_that_reads_classes_says_why_numbers_have_none(folder: Path, tmp_path: Path) -> None:
    lines = [f'"{" ".join(random.Random(i).choices(WORDS["films"], k=5))}",{i / 7}' for i in range(40)]
    (folder / "stars.csv").write_text("text,label\n" + "\n".join(lines))
    target = read_target(texts(tmp_path / "target.csv", "films"))
    held = {one.dataset.name: one for one in ranked(target, folder, method=("otdd", "frechet"))}
    assert list(held["stars"].refused) == ["otdd"]
    assert held["stars"].rank is not None
    with pytest.raises(Refused, match="works on single-label tasks"):
        rank_datasets(read_target(folder / "stars.csv"), [], Budget(), "otdd")


def test_a_set_is_no_nearer_for_being_the_only_one_with_classes(folder: Path, tmp_path: Path) -> None:
    target = read_target(texts(tmp_path / "target.csv", "films"))
    for theme in ("films", "music"):
        rows = (folder / f"{theme}.csv").read_text().splitlines()
        numbered = [f"{line.rpartition(',')[0]},{at / 7}" for at, line in enumerate(rows[1:])]
        (folder / f"{theme}.csv").write_text("\n".join([rows[0], *numbered]))
    found = ranked(target, folder, method=("otdd", "frechet"))
    # `otdd` knows one set of three, and puts it in the middle
    assert [(one.dataset.name, one.rank) for one in found] == [("films", 1.0), ("music", 2.0), ("cards", 2.5)]


def test_an_encoder_is_the_embedding_where_one_is_given(folder: Path, tmp_path: Path) -> None:
    import tiny_models
    from headstart.io.sources import scan

    tiny_models.save_model(tmp_path / "shelf" / "tiny", "bert", num_hidden_layers=1)
    sources, _ = scan(tmp_path / "shelf")
    target = read_target(texts(tmp_path / "target.csv", "films"))
    found = ranked(target, folder, sources=sources, method="frechet", draws=1)
    assert found[0].receipt is not None
    assert found[0].receipt.facts["embedding"] == "`tiny`"
    plain = ranked(target, folder, method="frechet", draws=1)
    assert found[0].divergences != plain[0].divergences
    with pytest.raises(Refused, match="no source can be the embedding"):
        ranked(target, folder, sources=[replace(sources[0], modality="image")])


def test_tokens_are_the_texts_that_they_make_in_the_space_of_an_encoder_too(folder: Path, tmp_path: Path) -> None:
    import tiny_models
    from headstart.io.sources import scan

    tiny_models.save_model(tmp_path / "shelf" / "tiny", "bert", num_hidden_layers=1)
    lines = (folder / "films.csv").read_text().splitlines()[1:]
    spelt = [
        "".join(f"{w} {'B-X' if w == 'film' else 'O'}\n" for w in line.rpartition(",")[0].split()) for line in lines
    ]
    (folder / "tokens.conll").write_text("\n".join(spelt))
    target = read_target(texts(tmp_path / "target.csv", "films"))
    sources, _ = scan(tmp_path / "shelf")
    held = {one.dataset.name: one for one in ranked(target, folder, sources=sources, method="frechet", draws=1)}
    assert held["tokens"].divergences["frechet"] == pytest.approx(held["films"].divergences["frechet"], rel=1e-4)


TRAINED = ("task2vec", "gradient_similarity", "attribution_similarity", "mask_overlap")


@pytest.fixture
def shelf(tmp_path: Path) -> list[Source]:
    import tiny_models
    from headstart.io.sources import scan

    tiny_models.save_model(tmp_path / "shelf" / "tiny", "bert", num_hidden_layers=1)
    return list(scan(tmp_path / "shelf")[0])


def known(file: Path, words: str, moods: tuple[str, str], seed: int) -> Path:
    """Texts of words that the tiny model knows, whose label is the mood that one of them tells."""
    draw = random.Random(seed)
    lines = ["text,label"]
    for at in range(40):
        said = [*draw.choices(words.split(), k=5), draw.choice(moods[at % 2].split())]
        draw.shuffle(said)
        lines.append(f"{' '.join(said)},{'ab'[at % 2]}")
    file.write_text("\n".join(lines))
    return file


def test_similarities_and_divergences_count_together(tmp_path: Path, shelf: list[Source]) -> None:
    (tmp_path / "sets").mkdir()
    pets, land = ("cat dog mat house sat", ("big red", "old new")), ("hill tree here under over", ("it was", "is and"))
    target = read_target(known(tmp_path / "target.csv", *pets, seed=0))
    known(tmp_path / "sets/pets.csv", *pets, seed=1)
    known(tmp_path / "sets/land.csv", *land, seed=1)
    found = ranked(target, tmp_path / "sets", method=("frechet", *TRAINED, "covariance_alignment"), sources=shelf)
    assert [(one.dataset.name, one.rank) for one in found] == [("pets", 1.0), ("land", 2.0)]
    assert list(found[0].divergences) == ["frechet"]
    assert list(found[0].similarities) == [*TRAINED, "covariance_alignment"]
    assert all(found[1].similarities[name] < value < 1 for name, value in found[0].similarities.items())
    assert found[0].nearest == 1.0
    assert found[0].receipt is not None
    assert found[0].receipt.facts["similarities"] == dict(found[0].similarities)


def test_what_the_time_does_not_reach_is_listed(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock ends after the second data set."""
    from headstart.execution.meter import Meter

    target = read_target(texts(tmp_path / "target.csv", "films"))
    asked: list[None] = []

    def left(_: Meter) -> float:
        asked.append(None)
        return 0.0 if len(asked) > 2 else 1.0

    monkeypatch.setattr(Meter, "left", left)
    found = ranked(target, folder, method="frechet")
    assert sum(one.error is None for one in found) == 2
    late = [one.error for one in found if one.error is not None]
    assert late
    assert all("the time was over" in problem.what for problem in late)


def test_a_task_is_embedded_once_and_the_run_folder_keeps_it(folder: Path, tmp_path: Path, shelf: list[Source]) -> None:
    target = read_target(texts(tmp_path / "target.csv", "films"))

    def asked(resume: bool) -> tuple[Near, ...]:
        with execution.begin(
            tmp_path / "run", Budget(), inputs={"target": target.fingerprint}, resume=resume, executor="in_process"
        ) as run:
            return ranked(target, folder, method=TRAINED[:2], sources=shelf, rows=20, run=run)

    first = asked(resume=False)
    kept = sorted((tmp_path / "run/run/trials").glob("*/embedding.npz"))
    assert len(kept) == 2 * 4, "two methods, the target and three data sets"
    stamps = [one.stat().st_mtime_ns for one in kept]
    second = asked(resume=True)
    assert [one.stat().st_mtime_ns for one in kept] == stamps, "nothing is done again"
    assert [dict(one.similarities) for one in first] == [dict(one.similarities) for one in second]
    assert first[0].nearest is None, "what trains has one figure, and no draws"


def test_what_trains_is_refused_without_a_model_that_can(folder: Path, tmp_path: Path, shelf: list[Source]) -> None:
    target = read_target(texts(tmp_path / "target.csv", "films"))
    for name in TRAINED:
        with pytest.raises(Refused, match=f"`{name}` needs gradients, and no source was given"):
            ranked(target, folder, method=name)
    with pytest.raises(Refused, match="needs gradients, and `tiny` gives features only"):
        ranked(target, folder, method=TRAINED, sources=[replace(shelf[0], gives=("features",))])
    alone = ranked(target, folder, method="covariance_alignment", draws=1)
    assert set(alone[0].similarities) == {"covariance_alignment"}


def test_a_set_of_numbers_has_no_classes_to_be_alike_in(folder: Path, tmp_path: Path, shelf: list[Source]) -> None:
    lines = [f'"{" ".join(random.Random(i).choices(WORDS["films"], k=5))}",{i / 7}' for i in range(40)]
    (folder / "stars.csv").write_text("text,label\n" + "\n".join(lines))
    target = read_target(texts(tmp_path / "target.csv", "films"))
    found = ranked(target, folder, method=("otdd", "data_map", "gradient_similarity"), sources=shelf, rows=12, draws=1)
    held = {one.dataset.name: one for one in found}["stars"]
    said = {name: problem.what for name, problem in held.refused.items()}
    for name in ("otdd", "data_map"):
        assert said[name] == f"`{name}` does not work on a regression task"
    assert held.similarities.keys() == {"gradient_similarity"}
    assert held.rank is not None
    with pytest.raises(Refused, match="`data_map` works on single-label tasks"):
        rank_datasets(read_target(folder / "stars.csv"), [], Budget(), "data_map", sources=shelf)


def test_data_maps_say_why_sets_of_other_rows_have_none(folder: Path, tmp_path: Path) -> None:
    target = read_target(texts(tmp_path / "target.csv", "films"))
    (folder / "same.csv").write_text((tmp_path / "target.csv").read_text())
    found = ranked(target, folder, method=("data_map", "frechet"), draws=2)
    held = {one.dataset.name: one for one in found}
    assert held["same"].similarities["data_map"] == pytest.approx(1)
    assert "0 inputs are shared" in held["cards"].refused["data_map"].what
    assert held["cards"].rank is not None


def test_a_similarity_of_ones_own_runs_here(folder: Path, tmp_path: Path, shelf: list[Source]) -> None:
    target = read_target(texts(tmp_path / "target.csv", "films"))
    found = ranked(target, folder, method=Depth(), sources=shelf, rows=10)
    assert [list(one.similarities) for one in found] == 3 * [[f"?{__name__}:Depth"]]
    assert {one.rank for one in found} == {2.0}, "all are as alike"


def test_a_name_that_no_method_has_is_answered_with_the_nearest(folder: Path, tmp_path: Path) -> None:
    target = read_target(texts(tmp_path / "target.csv", "films"))
    with pytest.raises(Unfit, match="task2vek") as caught:
        ranked(target, folder, method="task2vek")
    assert "task2vec" in caught.value.fix


def test_tables_are_compared_on_the_columns_of_the_target(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)

    def table(name: str, middle: float, columns: str = "area,age,city,kind") -> None:
        rows = [
            f"{a:.3f},{b:.3f},{'AB'[int(a > middle)]},{'xy'[int(b > middle)]}"
            for a, b in draw.normal(middle, 1, (50, 2))
        ]
        (tmp_path / name).write_text(columns + "\n" + "\n".join(rows))

    (tmp_path / "sets").mkdir()
    table("target.csv", 0)
    table("sets/far.csv", 5)
    table("sets/near.csv", 0.2)
    table("sets/other.csv", 0, "width,age,city,kind")
    found = ranked(read_target(tmp_path / "target.csv", label="kind"), tmp_path / "sets")
    assert [one.dataset.name for one in found] == ["near", "far", "other"]
    assert found[2].error is not None
    assert "`area`" in found[2].error.what


def test_images_by_pixels_and_gradients(tmp_path: Path) -> None:
    from PIL import Image

    draw = np.random.default_rng(0)

    def pictures(name: str, low: int, stripes: bool) -> Path:
        for kind in range(2):
            (tmp_path / name / f"kind-{kind}").mkdir(parents=True)
            for at in range(8):
                pixels = draw.integers(low + 60 * kind, low + 60 * kind + 40, (16, 16, 3), dtype=np.uint8)
                pixels[:: 2 if stripes else 16] = 0
                Image.fromarray(pixels).save(tmp_path / name / f"kind-{kind}" / f"{at}.png")
        return tmp_path / name

    pictures("sets/striped", 60, True)
    pictures("sets/plain", 60, False)
    found = ranked(read_target(pictures("target", 60, False)), tmp_path / "sets")
    assert [one.dataset.name for one in found] == ["plain", "striped"]
    assert list(found[0].divergences) == ["otdd", "frechet", "mmd", "proxy_a"], "the words of images are not compared"


def test_the_target_among_the_data_sets_stays_sealed_and_one_that_was_read_costs_itself_alone(
    folder: Path, tmp_path: Path
) -> None:
    target = read_target(
        texts(tmp_path / "target.csv", "films"), test=str(texts(tmp_path / "test.csv", "films", 20, seed=5))
    )
    other = read_target(texts(tmp_path / "a.csv", "music"), test=str(texts(tmp_path / "b.csv", "music", 20, seed=5)))
    other.seal.open()
    found = rank_datasets(target, [target, other, *read_datasets(folder)[0]], Budget(), "mmd", draws=1)
    assert target.seal.opened == 0
    assert {one.dataset.name: one.error.what for one in found if one.error} == {
        "target": "it is the target",
        "a": "the test rows of this target were read before",
    }


def test_pairs_and_texts_are_compared_without_a_model(folder: Path, tmp_path: Path) -> None:
    lines = [f'"{" ".join(random.Random(i).choices(WORDS["cards"], k=5))}",film {i},{i % 2}' for i in range(40)]
    (folder / "pairs.csv").write_text("text,text_pair,label\n" + "\n".join(lines))
    target = read_target(texts(tmp_path / "target.csv", "films"))
    alone = {one.dataset.name: dict(one.divergences) for one in ranked(target, folder, method="jensen_shannon")}
    (folder / "pairs.csv").unlink()
    without = {one.dataset.name: dict(one.divergences) for one in ranked(target, folder, method="jensen_shannon")}
    assert "pairs" in alone
    assert {name: alone[name] for name in without} == without


def test_a_method_sees_what_it_declares_alone() -> None:
    import pyarrow as pa

    rows = Rows(("a",), ("a",), ("a",), pa.table({"text": ["a"]}), np.array([0]))
    task = Task(type="single_label", classes=("x", "y"))
    blind = DataSample(rows, task, np.zeros((1, 2))).seen_by(Needs(labels=False), "blind")
    for name in ("texts", "features", "labels"):
        with pytest.raises(Undeclared):
            getattr(blind, name)
    seeing = DataSample(rows, task, np.zeros((1, 2))).seen_by(
        Needs(gives=("features",), modalities=("text",)), "seeing"
    )
    assert (list(seeing.texts), seeing.features.shape, len(seeing), seeing.classes) == (["a"], (1, 2), 1, 2)


def test_settings_that_mean_nothing_are_unfit(folder: Path, tmp_path: Path) -> None:
    target = read_target(texts(tmp_path / "target.csv", "films"))
    with pytest.raises(Unfit):
        ranked(target, folder, draws=0)


@pytest.mark.skipif(not DATA.is_dir(), reason="no folder ../shared/data with real sets beside the repository")
def test_sentences_of_films_are_nearest_to_sentences_of_films() -> None:
    target = read_target(DATA / "sst2", labels=400)
    others = [read_target(DATA / name, labels=400) for name in ("mr", "trec6", "banking77")]
    found = rank_datasets(target, others, Budget(), ("frechet", "mmd", "jensen_shannon"), rows=300, draws=2)
    assert found[0].dataset.name == "mr"
    assert found[0].shared > 100
