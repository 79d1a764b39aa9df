"""Laws of tests, folds and draws, on tables that hypothesis draws."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.numerics.folds import (
    SPLIT_FROM,
    deal,
    draw_order,
    folds_for,
    group_names,
    held_out,
    in_test,
    linked,
    outer_folds,
    scored_folds,
    strata_of,
)

TABLE = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40)), min_size=8, max_size=80)  # (class, group)
FAST = settings(max_examples=60, deadline=None)


def labels_and_groups(table: list[tuple[int, int]]) -> tuple[np.ndarray, list[str]]:
    return np.array([c for c, _ in table]), [f"g{g}" for _, g in table]


@given(TABLE, st.integers(0, 3))
@FAST
def test_a_group_lies_on_one_side_of_every_cell(table: list[tuple[int, int]], seed: int) -> None:
    labels, groups = labels_and_groups(table)
    folds = folds_for(labels, groups, seed)
    for repeat, fold in folds.cells():
        train, valid = folds.sides(repeat, fold)
        assert not {groups[r] for r in train} & {groups[r] for r in valid}
        assert train


@given(TABLE, st.integers(0, 3))
@FAST
def test_each_row_is_scored_once_a_repeat_or_never(table: list[tuple[int, int]], seed: int) -> None:
    labels, groups = labels_and_groups(table)
    folds = folds_for(labels, groups, seed)
    scored = [[row for f in range(folds.k) for row in folds.sides(r, f)[1]] for r in range(folds.repeats)]
    for rows in scored:
        assert len(rows) == len(set(rows))
        assert sorted(rows) == sorted(scored[0])


@given(TABLE)
@FAST
def test_only_groups_with_a_class_of_their_own_are_never_scored(table: list[tuple[int, int]]) -> None:
    labels, groups = labels_and_groups(table)
    alone = {
        g
        for c in set(labels.tolist())
        for g in groups
        if {h for k, h in zip(labels, groups, strict=True) if k == c} == {g}
    }
    of = deal(labels.tolist(), groups, 5, "s")
    assert {g for g, f in zip(groups, of, strict=True) if f == -1} == alone


@given(TABLE, st.randoms(use_true_random=False))
@FAST
def test_the_order_of_the_table_changes_nothing(table: list[tuple[int, int]], random: object) -> None:
    order = list(range(len(table)))
    random.shuffle(order)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    labels, groups = labels_and_groups(table)
    moved = [table[i] for i in order]
    moved_labels, moved_groups = labels_and_groups(moved)
    for one, other in zip(folds_for(labels, groups).of, folds_for(moved_labels, moved_groups).of, strict=True):
        assert [one[i] for i in order] == list(other)
    assert [outer_folds(labels, groups)[i] for i in order] == outer_folds(moved_labels, moved_groups)


@given(st.lists(st.integers(0, 1000), max_size=60), st.lists(st.integers(0, 1000), max_size=60), st.integers(0, 2))
@FAST
def test_membership_does_not_move_when_rows_are_added(first: list[int], more: list[int], seed: int) -> None:
    keys = [str(k) for k in first]
    assert in_test(keys + [str(k) for k in more], seed)[: len(keys)] == in_test(keys, seed)


def test_about_a_fifth_is_tested_and_another_seed_tests_another_fifth() -> None:
    keys = [str(i) for i in range(5000)]
    assert abs(np.mean(in_test(keys, 0)) - 0.2) < 0.02  # 3.5 standard errors
    assert in_test(keys, 0) != in_test(keys, 1)


@given(TABLE, st.integers(0, 3))
@FAST
def test_each_class_keeps_two_training_groups_or_all_its_rows(table: list[tuple[int, int]], seed: int) -> None:
    labels, groups = labels_and_groups(table)
    tested, small = held_out(groups, labels.tolist(), seed)
    plain = in_test(groups, seed)
    assert not {g for g, t in zip(groups, tested, strict=True) if t} & {
        g for g, t in zip(groups, tested, strict=True) if not t
    }
    for c in set(labels.tolist()):
        kept = {g for g, k, t in zip(groups, labels, tested, strict=True) if k == c and not t}
        assert len(kept) >= 2 or not any(t for k, t in zip(labels, tested, strict=True) if k == c)
        assert c not in small or not any(t for k, t in zip(labels, tested, strict=True) if k == c)
    assert all(p or not t for p, t in zip(plain, tested, strict=True))  # nothing is tested that its hash does not test


def test_without_strata_the_hash_alone_decides() -> None:
    keys = [str(i) for i in range(50)]
    assert held_out(keys, None, 3) == (in_test(keys, 3), [])


def test_a_class_with_one_row_is_trained_on_everywhere() -> None:
    labels = np.array([0] * 10 + [1] * 10 + [2])
    folds = folds_for(labels, [str(i) for i in range(21)])
    assert [of[20] for of in folds.of] == [-1, -1]
    assert all(f >= 0 for of in folds.of for f in of[:20])


def test_folds_are_balanced_within_each_class() -> None:
    labels = np.array([0] * 25 + [1] * 10)
    folds = folds_for(labels, [str(i) for i in range(35)])
    assert (folds.kind, folds.k, folds.repeats) == ("cv", 5, 2)
    assert folds.of[0] != folds.of[1]
    for of in folds.of:
        for c, size in ((0, 5), (1, 2)):
            assert np.bincount([f for f, k in zip(of, labels, strict=True) if k == c]).tolist() == [size] * 5


def test_many_rows_have_one_split_of_a_fifth() -> None:
    labels = np.arange(SPLIT_FROM) % 4
    folds = folds_for(labels, [str(i) for i in range(SPLIT_FROM)])
    assert (folds.kind, folds.k, folds.repeats) == ("split", 1, 1)
    valid = folds.sides(0, 0)[1]
    assert len(valid) == SPLIT_FROM // 5
    assert np.bincount(labels[valid]).tolist() == [100] * 4


def test_few_groups_make_few_folds() -> None:
    labels = np.array([0, 1, 0, 1, 0, 1])
    assert folds_for(labels, list("aabbcc")).k == 3
    assert folds_for(labels, list("aaaaaa")).k == 0
    assert scored_folds(np.array([0, 1]), ["a", "b"]) == 0


def test_numbers_are_spread_over_the_folds_by_size() -> None:
    labels = np.arange(100.0)
    folds = folds_for(labels, [str(i) for i in range(100)])
    means = [labels[folds.sides(0, f)[1]].mean() for f in range(5)]
    assert max(means) - min(means) < 6  # two of ten come from each tenth: at most 5.0 apart on average, by draw
    assert all(f >= 0 for of in folds.of for f in of)


@given(TABLE)
@FAST
def test_outer_folds_test_each_scored_row_once(table: list[tuple[int, int]]) -> None:
    labels, groups = labels_and_groups(table)
    of = outer_folds(labels, groups)
    for group in set(groups):
        assert len({f for f, g in zip(of, groups, strict=True) if g == group}) == 1
    assert set(of) <= set(range(-1, 5))


@given(TABLE, st.integers(0, 3))
@FAST
def test_the_beginning_of_a_draw_is_stratified(table: list[tuple[int, int]], seed: int) -> None:
    labels, _ = labels_and_groups(table)
    ids = [f"id{i}" for i in range(len(labels))]
    order = draw_order(labels, ids, seed)
    assert sorted(order) == list(range(len(labels)))
    for n in range(1, len(order)):
        for c, whole in enumerate(np.bincount(labels, minlength=4)):
            assert (
                abs(np.sum(labels[order[:n]] == c) - n * whole / len(order)) <= 3
            )  # one for each of the other classes


def test_a_draw_follows_names_not_places() -> None:
    labels, ids = np.array([0, 1] * 10), [f"id{i}" for i in range(20)]
    back = list(range(20))[::-1]
    moved = draw_order(labels[back], [ids[i] for i in back])
    assert [ids[back[r]] for r in moved] == [ids[r] for r in draw_order(labels, ids)]


def test_links_run_through_other_rows() -> None:
    assert linked(["a", "b", "c", "d"], [1, 1, 2, 3], ["x", "y", "y", "z"]) == [0, 0, 0, 1]
    assert group_names(["p", "q", "q", "r"], ["3", "3", "1", "2"]) == ("1", "1", "1", "2")
    assert group_names(None, ["3", "1"]) == ("3", "1")


def test_rows_of_several_labels_and_of_tags_are_all_scored() -> None:
    """A label of one row cannot be learned without it, and the row has others."""
    tags = np.empty(12, dtype=object)
    tags[:] = [["O", "B-a", f"B-{i}"] for i in range(12)]
    labels = np.hstack([np.ones((12, 1)), np.eye(12)]).astype(np.int8)
    names = [f"g{i}" for i in range(12)]
    for given_labels in (tags, labels):
        folds = folds_for(given_labels, names)
        assert folds.k == 5
        assert all(sorted(set(of)) == [0, 1, 2, 3, 4] for of in folds.of)
        assert -1 not in outer_folds(given_labels, names)
    alone = folds_for(np.array([0] * 6 + [1] * 5 + [2]), names)
    assert all(of[-1] == -1 and min(of[:-1]) == 0 for of in alone.of)


def test_the_rarest_label_is_the_stratum() -> None:
    tags = np.empty(3, dtype=object)
    tags[:] = [["O", "B-x"], ["O", "O"], ["B-x", "B-y"]]
    assert strata_of(tags).tolist() == [1, -1, 0]
    assert strata_of(np.array([3, 1])).tolist() == [3, 1]
