"""Ranking where each word has a tag: a tiny model's words, what its own head says of them, what is scored and told."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.numpy import load_file, save_file
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from transformers import AutoModelForTokenClassification, AutoTokenizer

import headstart as hs
import tiny_models
from headstart import catalogue, execution, ranking
from headstart.adaptation.routes.linear_probe import LinearProbe
from headstart.core import Needs, Problem, Refused, Source, Steps, Target, Unfit
from headstart.execution import alone
from headstart.execution.parts import part_of
from headstart.execution.views import Opener, Pool, opener
from headstart.execution.words import Seen, by_words
from headstart.io import sources
from headstart.io.places import cache_folder
from headstart.numerics.bootstrap import scored
from headstart.numerics.moments import Moments
from headstart.ranking import racing
from headstart.ranking.estimators.nmc import NMC
from headstart.ranking.racing import Ranked
from headstart.ranking.sets.consistency_diversity import ConsistencyDiversity
from headstart.testing.ranking_estimators import seen as arrays

Array = np.ndarray[Any, Any]
PLANTED = {"tree": "B-PLANT", "dog": "B-PET", "cat": "B-PET"}


def table(rows: int, *, longest: int = 9, shuffled: bool = False, seed: int = 0) -> pa.Table:
    """Sentences of random words, of which a few carry a tag; shuffled: the tags of all words are mixed up."""
    draw = random.Random(seed)
    words = [draw.choices(tiny_models.WORDS, k=draw.randint(3, longest)) for _ in range(rows)]
    tags = [PLANTED.get(w, "O") for sentence in words for w in sentence]
    if shuffled:
        draw.shuffle(tags)
    rest = iter(tags)
    return pa.table({"tokens": words, "tags": [[next(rest) for _ in sentence] for sentence in words]})


def target(rows: int = 80, **more: Any) -> Target:
    return hs.read_target(table(rows, **more), text="tokens", label="tags", name="tags")


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Source:
    (found,), _ = sources.scan(tiny_models.save_model(tmp_path_factory.mktemp("models") / "bert", "bert"))
    return found


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs run in this process."""
    monkeypatch.setattr(alone, "begin", partial(execution.begin, executor="in_process", show="none"))


def raced(aim: Target, shelf: list[Source], tmp_path: Path, *estimators: Any) -> list[Ranked]:
    with execution.begin(tmp_path / "run", hs.Budget(), inputs={}, executor="in_process", show="none") as run:
        return racing.race(part_of(run, aim, "root", cache_folder()), shelf, run, estimators)


def test_a_tag_that_the_encoder_sees_is_found(tmp_path: Path, bert: Source) -> None:
    (one,) = raced(target(160), [bert], tmp_path / "a", "nmc")
    (chance,) = raced(target(160, shuffled=True), [bert], tmp_path / "b", "nmc")
    assert one.score is not None
    assert chance.score is not None
    assert one.score.low > 0.75
    assert chance.score.high < 0.3
    assert one.proxies["nmc"] > chance.proxies["nmc"] + 0.2
    assert (one.rows, one.lost) == (160, 0), "rows are sentences"


def test_the_score_is_the_span_f1_of_sentences_none_of_whose_words_was_trained_on(tmp_path: Path, bert: Source) -> None:
    """By hand: a probe on the words of the other folds; the interval is drawn over sentences."""
    aim = target(40)
    (one,) = raced(aim, [bert], tmp_path)
    assert one.probe is not None
    assert one.score is not None
    truth, sentences = aim.labelled.labels, aim.labelled.inputs["tokens"].to_pylist()
    assert truth is not None
    with sources.opened(bert) as opened:
        features = opened.features(aim.labelled.inputs)
    owner = np.repeat(np.arange(40), [len(words) for words in sentences])
    names = [f"{aim.labelled.ids[i]} {n}" for i, words in enumerate(sentences) for n in range(len(words))]
    labels = np.array([aim.task.classes.index(tag) for tags in truth for tag in tags])
    values = []
    for repeat, of in enumerate(np.array(aim.folds.of)):
        said = np.empty(len(owner), dtype=object)
        for fold in range(aim.folds.k):
            train, valid = np.flatnonzero(of[owner] != fold), of[owner] == fold
            side = SimpleNamespace(features=features[train], labels=labels[train], ids=[names[at] for at in train])
            view: Any = SimpleNamespace(
                task="single_label", classes=len(aim.task.classes), train=side,
                valid=SimpleNamespace(features=features[valid]),
            )  # fmt: skip
            told = LinearProbe()(view, None, Steps()).predictions
            np.testing.assert_allclose(one.probe.cells()[repeat][valid], told, atol=1e-6)
            said[valid] = np.array(aim.task.classes, dtype=object)[told.argmax(axis=1)]
        rows = np.flatnonzero(of >= 0)
        tags, groups = [said[owner == i].tolist() for i in rows], [aim.labelled.groups[i] for i in rows]
        values.append(scored("span_f1", truth[rows], [tags], groups)[0])
    assert one.score.value == pytest.approx(np.mean([v.value for v in values]))
    assert one.score.high - one.score.low == pytest.approx(values[0].high - values[0].low)
    assert one.score.rows == (np.array(aim.folds.of[0]) >= 0).sum()


def test_estimators_see_words_as_rows_of_one_class(tmp_path: Path, bert: Source) -> None:
    aim = target(40)
    (one,) = raced(aim, [bert], tmp_path, "nmc", "rsa", "effective_rank")
    words = by_words(aim)
    assert words.labelled.labels is not None
    with sources.opened(bert) as opened:
        features = opened.features(aim.labelled.inputs)
    view = arrays(NMC(), features, words.labelled.labels, len(aim.task.classes), folds=np.array(words.folds.of[0]))
    assert one.proxies["nmc"] == pytest.approx(NMC()(view).value)
    assert set(one.proxies) == {"nmc", "rsa", "effective_rank"}, "the reference is what a word says alone"
    assert {len(set(words.labelled.groups)), len(set(aim.labelled.groups))} == {40}


def test_words_beyond_the_models_length_are_scored_as_the_commonest_tag_and_told(tmp_path: Path, bert: Source) -> None:
    """30 words of each sentence fit; the tags of those beyond are lost, and that costs what it should."""
    short = [["tree", "it", "dog"]] * 20
    made = [[*words, *[f"w{n}"], *["is"] * (40 if n % 2 else 0), "tree"] for n, words in enumerate(short)]
    tags = [[PLANTED.get(w, "O") for w in words] for words in made]
    aim = hs.read_target(pa.table({"tokens": made, "tags": tags}), text="tokens", label="tags", name="long")
    (one,) = raced(aim, [bert], tmp_path, "nmc")
    assert one.lost == 10 * 15
    assert one.score is not None
    assert one.probe is not None
    assert np.isfinite(one.probe.cells()).all(), "every word is scored"
    starts = np.cumsum([0, *(len(w) for w in made)])
    beyond = one.probe.cells()[0][starts[2] - 1]  # the last word of the second sentence, a tree
    assert aim.task.classes[int(beyond.argmax())] == "O"
    hit, spans = 3 * 10 + 2 * 10, 3 * 20
    assert one.score.value == pytest.approx(2 * hit / (hit + spans))
    receipt = ranking._receipt(one, aim, ("nmc",))
    assert receipt.facts["lost_words"] == 150
    assert "150 words have no features (sentences are cut at 32 tokens)" in receipt.warnings[0]


def test_losses_of_the_race_are_of_sentences(tmp_path: Path, bert: Source) -> None:
    """The mean over their words; none for a sentence that is not seen whole."""
    kinds = [(["tree", "{}"], ["A", "O"]), (["cat"] * 39 + ["{}"], ["O"] * 40), (["{}"], ["B"])]
    some = [([w.format(f"n{at}") for w in kinds[at % 3][0]], kinds[at % 3][1]) for at in range(15)]
    held = pa.table({"tokens": [words for words, _ in some], "tags": [tags for _, tags in some]})
    aim = hs.read_target(held, text="tokens", label="tags", name="three kinds")
    with opener_of(bert) as open_:
        seen = Seen(aim, open_, Pool.of_rows(open_, aim.labelled, None))
        assert seen.lost == 5 * 10
        losses = np.arange(len(seen.target.labelled), dtype=np.float64)
        told = seen.by_row(losses)
    assert told[[0, 2, 3]].tolist() == [0.5, 32.0, 33.5]
    assert np.isnan(told).tolist() == [False, True, False] * 5


def test_words_and_texts_do_not_meet_in_the_cache(bert: Source) -> None:
    """Rows of the same names: a text, its words, and its words cut in another way."""
    kinds = [
        pa.table({"text": ["old tree"]}),
        pa.table({"tokens": [["old", "tree"]]}),
        pa.table({"tokens": [["old tree"]]}),
        pa.table({"tokens": [["Old", "tree"]]}),
    ]
    with opener_of(bert) as open_:
        keys = {Pool(open_, ["one"], inputs, None).key(0, 1) for inputs in kinds}
    assert len(keys) == len(kinds)


def test_a_noisy_encoder_leaves_the_race(tmp_path: Path, bert: Source) -> None:
    blank, where = {}, tiny_models.save_model(tmp_path / "blank", "bert")
    for name, tensor in load_file(where / "model.safetensors").items():
        blank[name] = np.zeros_like(tensor)
    save_file(blank, where / "model.safetensors")
    (other,), _ = sources.scan(where)
    first, last = raced(target(300), [other, bert], tmp_path)
    assert (first.source.identity, first.rows) == (bert.identity, 300)
    assert last.dropped is not None
    assert (last.rows, last.lost) == (128, None)


def test_sets_of_taggers(tmp_path: Path, bert: Source) -> None:
    (other,), _ = sources.scan(tiny_models.save_model(tmp_path / "other", "bert", seed=1))
    aim = target(40)
    _, (found,) = ranking.rank_sets(aim, [bert, other], hs.Budget(), 2, estimators=())
    assert found.error is None
    assert found.gain is not None
    assert {s.identity for s in found.members} <= {bert.identity, other.identity}


def test_sets_by_features_are_of_the_words_that_all_sources_see(tmp_path: Path, bert: Source) -> None:
    """One source reads 30 words of a sentence, and one fewer; words that a source learned from may be cut off too."""
    where = tiny_models.save_model(tmp_path / "short", "bert", seed=1)
    config = json.loads((where / "tokenizer_config.json").read_text())
    (where / "tokenizer_config.json").write_text(json.dumps(config | {"model_max_length": 8}))
    (short,), _ = sources.scan(where)
    aim = target(40)
    with sources.opened(bert) as one, sources.opened(short) as two:
        features = [opened.features(aim.labelled.inputs) for opened in (one, two)]
    kept = ~np.isnan(features[1]).any(axis=1)
    assert 0 < kept.sum() < len(kept)
    assert not np.isnan(features[0]).any()
    words = by_words(aim)
    of = np.array(words.folds.of[0])
    scored = kept & (np.array(words.folds.of) >= 0).any(axis=0)
    method, folds = ConsistencyDiversity(), of[scored]
    drawn = [SimpleNamespace(features=f[scored], folds=folds, own=None) for f in features]
    long = hs.read_target(table(30, longest=20, seed=3), text="tokens", label="tags", name="short")
    for given in ((), (long,)):
        _, (found,) = ranking.rank_sets(aim, [bert, short], hs.Budget(), 2, [method], estimators=(), datasets=given)
        assert found.error is None
        members = [
            [bert, short].index(next(s for s in (bert, short) if s.identity == m.identity)) for m in found.members
        ]
        value = method(drawn)  # type: ignore[arg-type]  # all that it reads of candidates
        assert found.values == pytest.approx([value(members[: n + 1]) for n in range(len(members))])
    assert {s.name: n if isinstance(n, int) else "none" for s, n in found.own_rows} == {"bert": "none", "short": 30}

    plain = {"text": [f"{'old tree' if n % 2 else 'dog'} {n}" for n in range(20)], "label": ["a", "b"] * 10}
    texts = hs.read_target(pa.table(plain), text="text", label="label", name="short")
    _, (found,) = ranking.rank_sets(aim, [short], hs.Budget(), 2, [method], estimators=(), datasets=[texts])
    ((_, why),) = found.own_rows
    assert isinstance(why, Problem)
    assert "no lists of words" in why.what


def test_what_words_cannot_have_is_refused(tmp_path: Path, bert: Source) -> None:
    aim = target(20)
    with pytest.raises(Unfit, match="words are not pooled"):
        hs.rank(aim, [bert], hs.Budget(), "nmc", pooling=["cls"])
    with pytest.raises(Refused, match="a tagger cannot be saved yet"):
        hs.adapt(aim, [bert], hs.Budget(), "linear_probe", out=tmp_path / "out")

    numbered = [[str(int(t != "O")) for t in tags] for tags in table(20)["tags"].to_pylist()]
    unnamed = hs.read_target(table(20).set_column(1, "tags", pa.array(numbered)), text="tokens", label="tags")
    with pytest.raises(Unfit, match="the tags make no spans: 0, 1"):
        hs.rank(unnamed, [bert], hs.Budget(), "nmc")


HEADED = ("agreement", "energy", "etran", "leep", "nce", "nce_cv")
TAGS = ["nothing", "plant", "pet"]  # a tagger's own names, which are not the target's


def save_tagger(folder: Path, *, knows: bool, longest: int = 32) -> Source:
    """A tiny tagger; one that knows has a head fitted on what the words of other sentences are."""
    tiny_models.save_model(folder, "bert", tags=TAGS)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"model_max_length": longest}))
    if knows:
        held = load_file(folder / "model.safetensors")
        aim = target(120, seed=7)
        with sources.opened(sources.scan(folder)[0][0]) as opened:
            features = opened.features(aim.labelled.inputs)
        labels = by_words(aim).labelled.labels
        assert labels is not None
        order = [aim.task.classes.index(tag) for tag in ("O", "B-PLANT", "B-PET")]
        seen = ~np.isnan(features).any(axis=1)
        scaled = StandardScaler().fit(features[seen])
        fitted = LogisticRegression(C=100, max_iter=500)
        fitted.fit(scaled.transform(features[seen]), np.argsort(order)[labels[seen]])
        weight = np.ascontiguousarray(fitted.coef_ / scaled.scale_)
        held["classifier.weight"] = weight.astype("f4")
        held["classifier.bias"] = (fitted.intercept_ - weight @ scaled.mean_).astype("f4")
        save_file(held, folder / "model.safetensors", metadata={"format": "pt"})
    (found,), _ = sources.scan(folder)
    return found


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return save_tagger(tmp_path_factory.mktemp("taggers") / "tagger", knows=True)


def said_by(source: Source, aim: Target) -> Array:
    """(words, tags) sentence by sentence, by transformers alone; a word that is cut off has NaN."""
    tokenizer = AutoTokenizer.from_pretrained(source.where)
    model = AutoModelForTokenClassification.from_pretrained(source.where).eval()
    found = []
    for words in aim.labelled.inputs["tokens"].to_pylist():
        called = tokenizer(words, is_split_into_words=True, truncation=True, return_tensors="pt")
        with torch.no_grad():
            told = model(input_ids=called["input_ids"]).logits[0].double().softmax(-1).numpy()
        of = called.word_ids()
        found += [told[of.index(at)] if at in of else np.full(len(TAGS), np.nan) for at in range(len(words))]
    return np.array(found)


@pytest.mark.parametrize("longest", [32, 6])
def test_what_a_taggers_own_head_says_is_ranked(tmp_path: Path, tagger: Source, longest: int) -> None:
    """By hand, on the words that are seen: features and predictions of plain arrays."""
    one = tagger if longest == 32 else save_tagger(tmp_path / "short", knows=True, longest=longest)
    aim = target(40)
    (ranked,) = raced(aim, [one], tmp_path / "run", *HEADED)
    assert ranked.refused == {}
    said, words = said_by(one, aim), by_words(aim)
    seen = ~np.isnan(said).any(axis=1)
    assert ranked.lost == (~seen).sum()
    assert (longest == 32) == bool(seen.all())
    labels = words.labelled.labels
    assert labels is not None
    with sources.opened(one) as opened:
        features = opened.features(aim.labelled.inputs)
    for name in HEADED:
        method = catalogue.make("ranking.estimators", name)
        view: Any = SimpleNamespace(
            task="single_label", classes=3, labels=labels[seen], features=features[seen], predictions=said[seen],
            folds=np.array(words.folds.of[0])[seen], groups=np.array(words.labelled.groups)[seen],
        )  # fmt: skip
        view.moments = view.class_moments = Moments.of(view.features, view.labels, 3)
        assert ranked.proxies[name] == pytest.approx(method(view).value, abs=1e-5), name


def test_a_head_that_knows_the_tags_is_told_from_one_that_does_not(tmp_path: Path, tagger: Source) -> None:
    blind = save_tagger(tmp_path / "blind", knows=False)
    ranked = {r.source.identity: r for r in raced(target(60), [blind, tagger], tmp_path / "run", *HEADED)}
    assert ranked[tagger.identity].proxies["agreement"] > 0.95
    for name in ("agreement", "leep", "nce", "nce_cv"):
        assert ranked[tagger.identity].proxies[name] > ranked[blind.identity].proxies[name] + 0.05, name


def test_a_head_of_other_rows_is_refused(tmp_path: Path, bert: Source, tagger: Source) -> None:
    """None, or one of whole texts, for words; and that of a tagger for whole texts. The source is ranked as ever."""
    (classifier,), _ = sources.scan(tiny_models.save_model(tmp_path / "c", "bert", head=True))
    ranked = {r.source.name: r for r in raced(target(40), [bert, classifier, tagger], tmp_path / "run", "leep")}
    assert {name: [p.what for p in r.refused.values()] for name, r in ranked.items()} == {
        "bert": ["`bert` has no head of its own, so it predicts nothing yet"],
        "c": ["the head of `c` predicts whole rows, and these are lists of words"],
        "tagger": [],
    }
    assert all(r.score for r in ranked.values())

    plain = pa.table({"text": [f"{'old tree' if n % 2 else 'dog'} {n}" for n in range(40)], "label": ["a", "b"] * 20})
    texts = hs.read_target(plain, text="text", label="label", name="texts")
    ranked = {r.source.name: r for r in raced(texts, [classifier, tagger], tmp_path / "texts", "leep")}
    assert ranked["c"].refused == {}
    assert "predicts a tag for each word, and these are whole rows" in ranked["tagger"].refused["leep"].what

    leep, soup = Needs(gives=("predictions",)), Needs(gives=("predictions",), tasks=("single_label",))
    asked = [(leep, tagger, target(20)), (leep, classifier, texts), (leep, tagger, None), (soup, classifier, None)]
    assert [catalogue.refusal(needs, (one,), aim) for needs, one, aim in asked] == [None] * 4
    assert catalogue.refusal(leep, (classifier,), target(20)) == (
        "needs predictions of each word, and the head of `c` predicts whole rows"
    )
    assert (
        catalogue.refusal(leep, (tagger,), texts)
        == catalogue.refusal(soup, (tagger,))
        == ("needs predictions of whole rows, and the head of `tagger` predicts a tag for each word")
    )
    assert catalogue.refusal(leep, (bert,), target(20)) == (
        "needs predictions, and `bert` gives features, gradients, weights only"
    )


@pytest.mark.parametrize("name", ["e_leep", "ms_leep", "osborn"])
def test_sets_by_what_taggers_say(tmp_path: Path, bert: Source, tagger: Source, name: str) -> None:
    """On the words that all of them see; one reads six tokens of a sentence."""
    short = save_tagger(tmp_path / "short", knows=False, longest=6)
    aim, method = target(40), catalogue.make("ranking.sets", name)
    _, (found,) = ranking.rank_sets(aim, [bert, tagger, short], hs.Budget(), 2, [method], estimators=())
    assert found.error is None
    assert [(s.name, p.what[:18]) for s, p in found.left_out] == [("bert", "needs predictions,")]
    said, words = [said_by(one, aim) for one in (tagger, short)], by_words(aim)
    rows = ~np.isnan(said[1]).any(axis=1) & (np.array(words.folds.of) >= 0).any(axis=0)
    assert 0 < rows.sum() < len(rows)
    labels = words.labelled.labels
    assert labels is not None
    drawn: Any = [SimpleNamespace(labels=labels[rows], predictions=p[rows], classes=3, own=None) for p in said]
    value = method(drawn)
    members = [["tagger", "short"].index(m.name) for m in found.members]
    assert members[0] == 0
    assert found.values == pytest.approx([value(members[: n + 1]) for n in range(len(members))], abs=1e-5)


def test_osborn_reads_words_that_a_tagger_learned_from(tagger: Source) -> None:
    aim, own = target(40), hs.read_target(table(30, seed=3), text="tokens", label="tags", name="tagger")
    _, (found,) = ranking.rank_sets(aim, [tagger], hs.Budget(), 2, ["osborn"], estimators=(), datasets=[own])
    assert found.error is None
    assert [(s.name, n) for s, n in found.own_rows] == [("tagger", 30)]
    words = by_words(aim).labelled.labels
    assert words is not None
    assert own.labelled.labels is not None
    tags = np.array([tag for one in own.labelled.labels for tag in one])
    with sources.opened(tagger) as opened:
        features, theirs = opened.features(aim.labelled.inputs), opened.features(own.labelled.inputs)
    scored = (np.array(by_words(aim).folds.of) >= 0).any(axis=0)
    drawn: Any = SimpleNamespace(
        labels=words[scored], predictions=said_by(tagger, aim)[scored], classes=3, features=features[scored],
        own=(theirs, tags),
    )  # fmt: skip
    assert found.values == pytest.approx([catalogue.make("ranking.sets", "osborn")([drawn])((0,))], abs=1e-5)


@contextmanager
def opener_of(source: Source) -> Iterator[Opener]:
    with opener(source) as open_:
        assert open_ is not None
        yield open_
