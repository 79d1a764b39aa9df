"""Steps against scikit-learn, LightGBM, and numbers done by hand."""

from __future__ import annotations

import lightgbm
import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge

from headstart.core import Unfit, Unreadable
from headstart.numerics.artifacts import Step, Table, linked
from headstart.numerics.linear_fit import compact, fit_linear, ridge
from headstart.numerics.softmax import fit_softmax
from headstart.numerics.steps import ABSENT, apply, centred, constant, features, linear, prior, spread
from headstart.numerics.steps_image import histograms, hog, pixels
from headstart.numerics.steps_network import network, small_network
from headstart.numerics.steps_table import fit_columns, trees
from headstart.numerics.steps_text import WORD, fit_tfidf
from headstart.testing.adaptation_baselines import Side

TEXTS = ["a red lamp", "Red rivers run", "stones, 7 stones", "", "ünïcödé ½ 漢字 かな"]


def texts(*rows: str) -> Side:
    return Side(len(rows), written=rows)


@pytest.mark.parametrize(("unit", "lengths"), [("word", (1, 2)), ("char_wb", (2, 5))])
def test_tfidf_equals_the_fitted_vectorizer(unit, lengths):
    step = fit_tfidf(TEXTS, unit=unit, lengths=lengths, most=1000)
    more = {"token_pattern": WORD} if unit == "word" else {}
    fitted = TfidfVectorizer(analyzer=unit, ngram_range=lengths, sublinear_tf=True, **more).fit(TEXTS)
    rows = [*TEXTS, "never seen 42", "\0\ud7ff"]
    np.testing.assert_array_equal(features([step], texts(*rows)).toarray(), fitted.transform(rows).toarray())


def test_texts_without_any_word_give_no_columns():
    step = fit_tfidf(["", "  "], unit="word", lengths=(1, 1), most=9)
    assert features([step], texts("a", "b", "c")).shape == (3, 0)


def test_terms_that_are_too_rare_everywhere_are_then_all_kept():
    assert fit_tfidf(["a", "b"], unit="word", lengths=(1, 1), most=9, least_texts=2).texts["terms"] == '["a", "b"]'


def test_of_a_long_text_only_the_beginning_is_read():
    step = fit_tfidf(["one two"], unit="word", lengths=(1, 1), most=9, characters=3)
    assert step.texts["terms"] == '["one"]'


def test_pixels_are_grey_where_no_image_has_a_colour():
    images = np.full((2, 4, 4, 3), 51, np.uint8)
    raw = Side(2, drawn=images)
    np.testing.assert_allclose(features([pixels(raw, 4)], raw), 0.2, rtol=1e-6)
    images[1, 0, 0, 0] = 255
    assert features([pixels(raw, 4)], raw).shape == (2, 48)


def test_a_slope_to_the_right_is_one_direction_in_every_block():
    ramp = np.tile(np.arange(16, dtype=np.float32) * 10, (16, 1))[None]
    found = histograms(ramp, 4, 9).reshape(3, 3, 4, 9)
    # four equal values share a length of one; cut at 0.2 and made length one again they are 1/2 each
    np.testing.assert_allclose(found[..., 0], 0.5, atol=0.02)
    np.testing.assert_allclose(found[..., 1:], 0.0, atol=1e-6)


def test_a_gradient_between_two_directions_is_shared_by_its_angle():
    angle = np.pi / 9 * 1.25  # a quarter of the way from direction 1 to direction 2
    row, column = np.mgrid[0:16, 0:16].astype(np.float32)
    found = histograms((10 * (np.cos(angle) * column + np.sin(angle) * row))[None], 4, 9).reshape(3, 3, 4, 9)
    inner = found[1, 1]  # blocks at the rim see the flat border
    # shares 3 : 1 in four cells are 3 / √40 and 1 / √40, of which the first is cut at 0.2
    np.testing.assert_allclose(inner[:, 1] / inner[:, 2], 0.2 * np.sqrt(40), rtol=1e-3)  # float32
    assert inner[:, [0, *range(3, 9)]].max() < 1e-4


def test_histograms_do_not_depend_on_the_rows_beside():
    raw = Side(3, drawn=np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3)).astype(np.uint8))
    together = features([hog(32)], raw)
    assert together.shape == (3, 7 * 7 * 36)
    np.testing.assert_array_equal(together[1:2], features([hog(32)], raw.take([1])))


def table(**columns: pa.Array) -> Side:
    made = pa.table(columns)
    return Side(made.num_rows, table=made)


def test_numbers_are_filled_with_the_median_marked_and_scaled():
    train = table(n=pa.array([1.0, 3.0, None, 5.0]))
    found = features([fit_columns(train.columns, filled=True)], train)
    scale = np.std([1, 3, 5])
    np.testing.assert_allclose(found, [[-2 / scale, 0], [0, 0], [0, 1], [2 / scale, 0]])


def test_levels_that_were_not_trained_on_are_all_zeros():
    step = fit_columns(pa.table({"c": ["b", "a", "b", None]}), filled=True)
    found = features([step], table(c=pa.array(["a", "b", "new", None])))
    np.testing.assert_array_equal(found, [[0, 1], [1, 0], [0, 0], [0, 0]])


def test_trees_see_missing_numbers_as_missing():
    train = table(n=pa.array([1.0, None, float("inf")]))
    found = features([fit_columns(train.columns, filled=False)], train)
    assert np.isnan(found[1:, 0]).all()
    assert found[0, 0] == 1.0


def test_a_missing_column_and_a_text_for_a_number_are_named():
    step = fit_columns(pa.table({"size": [1.0, 2.0]}), filled=True)
    with pytest.raises(Unfit, match="`size` is missing"):
        features([step], table(other=pa.array([1.0])))
    with pytest.raises(Unfit, match="`size` held numbers"):
        features([step], table(size=pa.array(["large"])))


def test_columns_are_found_by_name_in_any_order():
    step = fit_columns(pa.table({"a": [1.0, 2.0], "b": [5.0, 9.0]}), filled=False)
    np.testing.assert_array_equal(features([step], table(b=pa.array([7.0]), a=pa.array([3.0]))), [[3.0, 7.0]])


@pytest.mark.parametrize(("objective", "classes"), [("binary", 2), ("multiclass", 3), ("regression", 0)])
def test_trees_equal_the_booster(objective, classes):
    chance = np.random.default_rng(0)
    x, y = chance.normal(size=(60, 3)), np.arange(60) % max(classes, 2)
    settings = {"objective": objective, "verbose": -1, "min_data_in_leaf": 2, "num_threads": 1}
    settings |= {"num_class": classes} if classes > 2 else {}
    booster = lightgbm.train(settings, lightgbm.Dataset(x, y), num_boost_round=4)
    raw = table(a=pa.array(x[:, 0]), b=pa.array(x[:, 1]), c=pa.array(x[:, 2]))
    found = apply(Table((fit_columns(raw.columns, filled=False), trees(booster))), raw)
    wanted = booster.predict(x)
    wanted = {"binary": lambda: np.stack([1 - wanted, wanted], 1), "regression": lambda: wanted[:, None]}.get(
        objective, lambda: wanted
    )()
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_a_network_equals_its_module():
    torch.manual_seed(0)
    module = small_network(1, (4, 8), 3)
    for buffer in module.buffers():
        if buffer.dtype == torch.float32:
            buffer.copy_(torch.rand_like(buffer) + 0.5)
    images = np.random.default_rng(0).integers(0, 255, (3, 8, 8, 1)).astype(np.uint8).repeat(3, axis=3)
    raw = Side(3, drawn=images)
    step = network(module, side=8, channels=1, widths=(4, 8), link="softmax")
    found = apply(Table((pixels(raw, 8), step)), raw)
    with torch.no_grad():
        x = torch.from_numpy(images[..., :1]).permute(0, 3, 1, 2).float() / 255 * 2 - 1
        wanted = module.eval()(x).softmax(dim=1)
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-6)


def test_centring_divides_all_columns_by_one_number():
    x = np.array([[0.0, 5.0], [2.0, 5.0]])
    step = centred(x)
    assert step.settings["spread"] == pytest.approx(np.sqrt(0.5))


def test_classes_without_rows_keep_a_small_probability():
    steps = (constant(np.array([0.5, 0.5])), *spread(np.array([0, 3]), 4))
    found = apply(Table(steps), texts("x"))
    np.testing.assert_allclose(found, [[0.5 - ABSENT, ABSENT, ABSENT, 0.5 - ABSENT]])


def test_a_prior_is_never_zero():
    assert prior(np.array([0, 0]), "single_label", 3).min() > 0
    assert prior(np.zeros((2, 2)), "multi_label", 2).min() > 0
    assert prior(np.array([1.0, 4.0]), "regression", 1).tolist() == [2.5]


def test_unknown_and_misplaced_steps_are_refused():
    for steps in [(Step(kind="neural_web"),), (linear(np.ones((1, 1)), np.ones(1), "identity"),)]:
        with pytest.raises(Unreadable, match="cannot run there"):
            apply(Table(steps), texts("x"))


@pytest.mark.parametrize("classes", [2, 3])
def test_rotated_rows_give_the_same_logistic_model(classes):
    chance = np.random.default_rng(1)
    x, y = chance.normal(size=(30, 80)), np.arange(30) % classes
    made = fit_linear(x, y, "single_label", classes, [str(i) for i in range(30)], strengths=(1.0,))
    strength = 2.0 if classes == 2 else 1.0  # of two classes scikit-learn penalises the difference alone
    wanted = LogisticRegression(C=strength, tol=1e-10, max_iter=10_000).fit(x, y).predict_proba(x)
    columns = {f"x{i}": pa.array(x[:, i]) for i in range(80)}
    read = fit_columns(pa.table(columns), filled=False)
    np.testing.assert_allclose(apply(Table((read, *made.steps)), table(**columns)), wanted, atol=1e-3)  # solver's stop


@pytest.mark.parametrize("shape", [(30, 8), (12, 40)])
def test_ridge_equals_scikit_learn(shape):
    chance = np.random.default_rng(2)
    x, y = chance.normal(size=shape) + 3, chance.normal(size=shape[0])
    small, back = compact(x)
    for penalty, (weight, bias) in zip((0.5, 20.0), ridge(small, y, (0.5, 20.0)), strict=True):
        wanted = Ridge(alpha=penalty).fit(x, y)
        np.testing.assert_allclose(back(weight[None])[0], wanted.coef_, atol=1e-8)
        assert bias == pytest.approx(wanted.intercept_)


@pytest.mark.parametrize("strength", [0.1, 100.0])
def test_softmax_on_sparse_columns_equals_scikit_learn(strength):
    chance = np.random.default_rng(4)
    x = sp.random(200, 50, density=0.1, random_state=4, format="csr")
    y = (np.asarray(x[:, :3].todense()).argmax(axis=1) + (chance.random(200) < 0.2)) % 3
    wanted = LogisticRegression(C=strength, tol=1e-10, max_iter=10_000).fit(x, y)
    weight, bias = fit_softmax(x, y, 3, strength)
    found = linked(x @ weight.T + bias, "softmax")
    np.testing.assert_allclose(found, wanted.predict_proba(x), atol=2e-3)  # both stop early


def test_a_nearby_start_leads_to_the_same_weights():
    chance = np.random.default_rng(5)
    x, y = chance.normal(size=(40, 6)), np.arange(40) % 3
    near = fit_softmax(x, y, 3, 0.5)
    for there, again in zip(fit_softmax(x, y, 3, 1.0), fit_softmax(x, y, 3, 1.0, start=near), strict=True):
        np.testing.assert_allclose(there - there.mean(axis=0), again - again.mean(axis=0), atol=5e-3)  # stops early


def test_noise_is_given_the_strongest_penalty():
    chance = np.random.default_rng(3)
    x, y = chance.normal(size=(60, 20)), chance.permutation(np.arange(60) % 3)
    assert fit_linear(x, y, "single_label", 3, [str(i) for i in range(60)]).facts["strength"] == 0.1
