"""Kappa and McNemar's test: against published tables and sums by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lox_kit.measures.agreement import Paired, pair_up


def paired(*counts):
    return Paired("a", "b", *counts)


@pytest.mark.parametrize(
    ("counts", "kappa"),
    [
        ((20, 5, 10, 15), 0.40),  # po .70, pe .50
        ((45, 15, 25, 15), 0.1304),  # po .60, pe .54
        ((25, 35, 5, 35), 0.2593),  # po .60, pe .46
        ((10, 0, 0, 10), 1.0),
        ((0, 10, 10, 0), -1.0),
    ],
)
def test_kappa_is_that_of_worked_tables(counts, kappa):
    """The first three are the usual examples of Cohen's kappa, po and pe worked by hand."""
    assert paired(*counts).kappa == pytest.approx(kappa, abs=5e-5)
    assert paired(*counts).agree == (counts[0] + counts[3]) / sum(counts)


@pytest.mark.parametrize(
    ("first", "second", "p"), [(0, 0, 1), (4, 4, 1), (6, 1, 2 * 8 / 2**7), (0, 5, 2 / 2**5)]
)
def test_the_p_value_is_exact_mcnemar_twice_the_binomial_tail(first, second, p):
    assert paired(3, first, second, 4).p_value == pytest.approx(p)


@given(st.lists(st.tuples(*[st.sampled_from([True, False, None])] * 2), max_size=40))
def test_every_item_is_in_the_table_or_left_out(readings):
    one, other = [r[0] for r in readings], [r[1] for r in readings]
    found = pair_up("a", one, "b", other)
    unread = sum(None in pair for pair in readings)
    assert (found.n + found.left_out, found.left_out) == (len(readings), unread)
    swapped = pair_up("b", other, "a", one)
    assert (found.only_first, found.only_second) == (swapped.only_second, swapped.only_first)
    assert found.p_value == pytest.approx(swapped.p_value)


def test_nothing_to_compare_has_no_kappa_and_no_difference():
    found = pair_up("a", [None], "b", [True])
    assert (found.n, found.agree, found.kappa, found.p_value) == (0, None, None, 1.0)
    assert paired(9, 0, 0, 0).kappa is paired(0, 0, 0, 9).kappa is None


def test_a_table_is_plain_data_with_what_follows_from_it():
    found = paired(20, 5, 10, 15).to_dict()
    assert found["kappa"] == pytest.approx(0.4)
    assert list(found)[:6] == ["first", "second", "both", "only_first", "only_second", "neither"]
    assert np.isfinite([found[n] for n in ("n", "agree", "p_value")]).all()
