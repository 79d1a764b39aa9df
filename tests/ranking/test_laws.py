"""Each law of the kind fails on a method that breaks it; and the kind's verb."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from headstart import catalogue
from headstart.core import Needs, Refused, Score, TaskType, Undeclared, Unfit, View
from headstart.ranking.estimators import score as score_all
from headstart.ranking.estimators.lda import LDA
from headstart.ranking.estimators.ridge_probe import RidgeProbe
from headstart.ranking.estimators.shrunk_h_score import ShrunkHScore
from headstart.ranking.racing import ESTIMATORS as KIND
from headstart.ranking.racing import PROXIES
from headstart.testing.ranking_estimators import ALWAYS, CLAIMS, above_noise, draw, falling, score, seen

ANY = Needs(gives=("features",), tasks=("single_label",))
LAWS = {law.__name__: law for law in ALWAYS} | CLAIMS


@dataclass(frozen=True)
class Broken:
    """The value by a wrong rule, on features f and labels y."""

    rule: Any
    needs: Any = ANY
    claims: tuple[str, ...] = ()
    cites: str = "nobody"

    def __call__(self, view: View) -> Score:
        return Score(float(self.rule(view.features, view.labels)))


class OfTheShift(Broken):
    """The rule is told the moments' own sums, which depend on what they were taken less of."""

    def __call__(self, view: View) -> Score:
        return Score(float(self.rule(view.moments.total, view.labels)))


def saturating(f: Any, y: Any) -> float:
    """In-sample least squares: perfect on noise with more dimensions than rows."""
    hot = np.eye(int(y.max()) + 1)[y]
    return -float(np.square(hot - f @ np.linalg.lstsq(f, hot, rcond=None)[0]).sum())


def between(f: Any, y: Any) -> float:
    """The share of the variance that lies between classes."""
    means = np.stack([f[y == c].mean(0) for c in y])
    return float(means.var(0).sum() / f.var(0).sum())


def flatness(f: Any) -> float:
    """Higher for features that fall into groups than for one Gaussian, whatever their labels."""
    return -float(np.mean(((f - f.mean(0)) / f.std(0)) ** 4))


CALLS = itertools.count()
RULES: dict[str, Any] = {
    "finite": lambda f, y: 1 / np.float64(f.std()) if f.std() else np.inf,
    "survives_thin_classes": lambda f, y: np.nan if (np.bincount(y, minlength=3) == 0).any() else 0.0,
    "repeatable": lambda f, y: next(CALLS),
    "chunking": lambda total, y: total.sum(),
    "row_order": lambda f, y: f[0, 0],
    "class_names": lambda f, y: f[y == 0].sum(),
    "rotation": lambda f, y: np.abs(f).sum(),
    "scale": lambda f, y: f.std(),
    "feature_scale": lambda f, y: np.linalg.norm(f - f.mean(0)) / np.linalg.norm(f[:, 0]),
    "translation": lambda f, y: np.abs(f).mean() / f.std(),
    "zero_columns": lambda f, y: f.shape[1],
    "prefers_signal": lambda f, y: 0.0,
    "falls_with_label_noise": lambda f, y: min(between(f, y), 0.2),
    "null_of_shuffled_labels": lambda f, y: between(f, y) + flatness(f),
    "width_safe": saturating,
    "jackknife": lambda f, y: np.sin(1e6 * f.sum()),  # nothing that one row does not change wholly
}


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_a_broken_method_breaks_the_law(name: str) -> None:
    with pytest.raises(AssertionError):
        LAWS[name]((OfTheShift if name == "chunking" else Broken)(RULES[name], claims=("jackknife",)), seed=0)


def of_columns(f: Any, y: Any) -> float:
    """The squared correlation of the first feature and the first column of the labels, and how the features lie."""
    return float(np.corrcoef(f[:, 0], np.reshape(y, (len(f), -1))[:, 0])[0, 1] ** 2 + flatness(f))


ALSO: dict[str, Any] = {
    "class_names": lambda f, y: f[y[:, 0] > 0].sum(),
    "null_of_shuffled_labels": of_columns,
    "falls_with_label_noise": lambda f, y: -len(y),
} | {n: RULES[n] for n in ("row_order", "rotation", "scale", "feature_scale", "translation", "zero_columns")}


@pytest.mark.parametrize("task", ["multi_label", "regression", "tagging"])
@pytest.mark.parametrize("name", ALSO)
def test_a_law_holds_for_every_task_that_is_covered(name: str, task: TaskType) -> None:
    rules = RULES if (name, task) == ("class_names", "tagging") else ALSO  # a word has one class
    wrong = Broken(rules[name], needs=Needs(gives=("features",), tasks=(task,)))
    if (name, task) == ("class_names", "regression"):
        LAWS[name](wrong, seed=0)  # a value has no names
        return
    with pytest.raises(AssertionError):
        LAWS[name](wrong, seed=0)


def test_words_are_tried_in_sentences_that_lie_in_one_fold_each() -> None:
    shown: list[tuple[Any, Any]] = []

    @dataclass(frozen=True)
    class Looking(Broken):
        def __call__(self, view: View) -> Score:
            shown.append((np.asarray(view.groups), np.asarray(view.folds)))
            assert view.task == "single_label"
            return Score(0.0)

    method = Looking(None, needs=Needs(gives=("features",), tasks=("tagging",)))
    for name in ("finite", "row_order", "class_names"):
        LAWS[name](method, seed=0)
    for groups, folds in shown:
        assert len(np.unique(groups)) < len(groups)
        assert len(np.unique(np.stack([groups, folds]), axis=1).T) == len(np.unique(groups)), "a sentence on two sides"
    orders = {tuple(groups.tolist()) for groups, _ in shown if len(groups) == 60}
    assert len(orders) == 2, "groups go with their rows"


@pytest.mark.parametrize("name", ["falls_with_label_noise", "null_of_shuffled_labels"])
def test_what_these_laws_find_is_lost_on_a_comparison_with_shuffled_labels(name: str) -> None:
    """Scores that go no higher than a little signal takes them, or that mostly tell how the features lie."""
    LAWS["prefers_signal"](Broken(RULES[name]), seed=0)
    for law in ("falls_with_label_noise", "null_of_shuffled_labels"):
        LAWS[law](Broken(between), seed=0)


def test_noise_of_uneven_variances_breaks_the_law_too() -> None:
    """A score that white noise does not raise, however wide, and noise that lies in few directions does."""
    method = ShrunkHScore(chance="kept")
    with pytest.raises(AssertionError, match="uneven variances"):
        LAWS["width_safe"](method, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n, e in catalogue.entries(KIND).items() if "width_safe" in e.claims])
def test_what_is_safe_for_any_width_is_so_with_many_rows(name: str) -> None:
    above_noise(catalogue.make(KIND, name), 0, 1000)


@pytest.mark.parametrize(
    "name",
    [n for n, e in catalogue.entries(KIND).items() if "features" in e.needs.gives and "width_safe" not in e.claims],
)
def test_what_is_not_safe_for_any_width_refuses_few_rows_with_the_reason(name: str) -> None:
    """So each estimator that reads features either claims the law above or is among these."""
    chance, y = np.random.default_rng(0), np.arange(100) % 4
    for noise in (*(chance.standard_normal((100, w)) for w in (64, 512, 4096)), falling(chance, 100, 384)):
        with pytest.raises(Unfit, match="100 rows") as told:
            score(catalogue.make(KIND, name), noise, y, 4)
        assert "label" in told.value.fix


def test_the_default_proxies_are_safe_for_any_width() -> None:
    assert [n for n in PROXIES if "width_safe" not in catalogue.entry(KIND, n).claims] == []


def test_input_that_is_changed_is_noticed() -> None:
    def in_place(f: Any, y: Any) -> float:
        f -= 1
        return 0.0

    with pytest.raises(AssertionError, match="changes its input"):
        LAWS["repeatable"](Broken(in_place), seed=0)


def test_a_view_shows_only_what_is_declared() -> None:
    f, y = draw(0)
    with pytest.raises(Undeclared):
        _ = seen(Broken(len, needs=Needs()), f, y).moments
    with pytest.raises(Undeclared):
        _ = seen(Broken(len, needs=Needs(gives=("features",), labels=False)), f, y).labels
    with pytest.raises(Undeclared):
        _ = seen(Broken(len), f, y).predictions
    with pytest.raises(Undeclared):
        _ = seen(Broken(len), f, y).reference


def test_the_verb_scores_by_name_and_by_instance() -> None:
    f, y = draw(0)
    view = seen(RidgeProbe(), f, y)
    given = score_all(view, ["lda", "ridge-probe", LDA(shrinkage=0.1)])
    assert list(given) == ["lda", "ridge-probe", "LDA"]
    assert given["ridge-probe"].value == RidgeProbe()(view).value


def test_the_verb_refuses_before_it_scores() -> None:
    f, _ = draw(0)
    view = seen(RidgeProbe(), f, f[:, 0], 0, "regression")
    with pytest.raises(Refused, match="ridge_probe"):
        score_all(view, ["ridge_probe", "lda"])
    with pytest.raises(Unfit, match="ridge_probe"):
        score_all(view, ["ridge_prob"])
