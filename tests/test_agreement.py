"""Kappa and McNemar's test: against published tables and sums by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lox_kit.measures.agreement import Paired, pair_up
from lox_kit.measures.intervals import Share


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


def test_kappa_has_the_large_sample_interval():
    """Of 20, 5, 10, 15: kappa .4 with a standard error of .127 (Fleiss, Cohen and Everitt 1969)."""
    assert paired(20, 5, 10, 15).kappa_interval == pytest.approx((0.1511, 0.6489), abs=5e-5)
    assert paired(10, 0, 0, 10).kappa_interval == (1.0, 1.0)
    assert paired(9, 0, 0, 0).kappa_interval is None


def test_the_interval_of_two_shares_of_the_same_items_is_newcombe_s_for_pairs():
    """Airway reactivity of 21 children before and after: Fagerland et al. (2014), tables 1, 4."""
    found = paired(1, 1, 7, 12)
    assert found.difference == pytest.approx((-0.286, -0.507, -0.026), abs=5e-4)
    assert found.shares == (Share(2, 21), Share(8, 21))
    value, low, high = paired(30, 5, 5, 30).difference
    _, independent_low, independent_high = Share(35, 70).minus(Share(35, 70))
    assert value == 0.0
    assert independent_low < low < high < independent_high
    assert paired(0, 0, 0, 9).difference[0] == 0.0  # no margin is 0 / 0


@pytest.mark.parametrize(
    ("counts", "needed"),
    # (1.96 sqrt(d) + .8416 sqrt(d - .01))^2 / .01, by hand
    [((40, 10, 10, 40), 155), ((40, 20, 20, 20), 312), ((50, 0, 0, 50), 77)],
)
def test_the_prompts_that_show_ten_points_are_miettinen_s(counts, needed):
    assert paired(*counts).prompts_needed() == needed


def test_so_many_prompts_show_ten_points_in_four_studies_of_five():
    table = [0.4, 0.15, 0.05, 0.4]  # a fifth is discordant, ten points apart
    draws = np.random.default_rng(0).multinomial(155, table, size=1000)
    assert np.mean([paired(*map(int, d)).p_value < 0.05 for d in draws]) == pytest.approx(
        0.78, abs=0.04
    )  # the exact test is a little careful


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
