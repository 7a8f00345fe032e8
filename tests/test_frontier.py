"""The frontier of directions at equal cost: its figure, and the five questions in words."""

import dataclasses
from itertools import product

import pytest

from lox_kit.figures import curve_points, figure_frontier
from lox_kit.measures import Share, share_fields
from lox_kit.reports import frontier_text, write_frontier
from lox_kit.studies import Arm, AttackTable

ARMS = [
    Arm("aligned"),
    Arm("LoX", 6, 1.0, "LoX k=6 alpha=1"),
    Arm("LoX", 6, 2.0, "LoX k=6 alpha=2"),
    Arm("full delta", 6, 1.0, "full delta k=6 alpha=1"),
    Arm("full delta", 6, 2.0, "full delta k=6 alpha=2"),
    Arm("aligned", name="longer aligned", checkpoint="smol/longer"),
]
# of ten requests, by arm: forbidden refused before and after, allowed refused before and after
COUNTS = [(9, 3, 1, 0), (9, 7, 4, 1), (10, 9, 8, 2), (9, 4, 2, 0), (9, 8, 5, 1), (9, 2, 4, 0)]


def made(counts, attack, seed):
    """Return one row of a table in which the first requests are those that are refused."""
    forbidden, allowed = counts
    read = {
        k: "r" * n + "a" * (10 - n) for k, n in zip(("forbidden", "allowed"), counts, strict=True)
    }
    shares = {"asr": 10 - forbidden, "refusal": forbidden, "degenerate": 0}
    shares |= {"over_refusal": allowed, "helpfulness": 10 - allowed}
    measures = {name: share_fields(Share(n, 10)) for name, n in shares.items()}
    row = {"attack": attack, "training": "full", "seed": seed}
    return row | {"measures": measures, "readings": read}


@pytest.fixture
def table():
    """Return the frontier of two seeds under one attack."""
    rows = [
        {**made(pair, attack, seed), "arm": arm.name}
        for (arm, (f0, f1, a0, a1)), seed in product(zip(ARMS, COUNTS, strict=True), (0, 1))
        for attack, pair in ((None, (f0, a0)), ("chat", (f1, a1)))
    ]
    named = {arm.name: dataclasses.asdict(arm) for arm in ARMS if arm.name != arm.kind}
    about = {"k": 6, "alpha": 1.0, "judge": "keyword", "pair": "the smol family of each seed"}
    return AttackTable(tuple(rows), about | {"arms": named})


def test_a_curve_begins_at_the_aligned_model_and_pairs_cost_before_with_what_is_kept_after(table):
    data = table.to_dict()
    assert curve_points(data, "top 6", "chat", 0) == [
        (0.0, 0.1, 0.3),
        (1.0, 0.4, 0.7),
        (2.0, 0.8, 0.9),
    ]
    assert curve_points(data, "longer aligned", "chat", 1) == [(1.0, 0.4, 0.2)]
    assert curve_points(data, "random", "chat", 0) == []


def test_the_figure_draws_means_over_seeds_with_a_line_for_each_direction(table):
    fig = figure_frontier({"figure": "frontier", **table.to_dict()})
    (ax,) = fig.axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in ax.lines}
    assert lines["top 6"] == [[0.1, 0.3], [0.4, 0.7], [0.8, 0.9]]
    assert lines["longer aligned"] == [[0.4, 0.2]]
    assert lines["aligned"] == [[0.1, 0.3]]
    assert "after chat" in ax.get_title()


def test_five_questions_are_answered_with_counts_and_a_paired_test_at_nearly_equal_cost(table):
    erodes, holds, rank, more, cost = frontier_text(table).splitlines()[:5]
    assert "aligned before: 0.90" in erodes
    assert "12 against 0 requests" in erodes
    assert "LoX k=6 alpha=1 after chat: 0.70" in holds
    assert "8 against 0 requests, exact McNemar p = 0.0078" in holds
    assert "full delta k=6 alpha=2 after chat: 0.80" in rank  # .5 is nearer to .4 than .2 is
    assert rank.endswith("Over-refusal before: LoX k=6 alpha=1 0.40, full delta k=6 alpha=2 0.50.")
    assert "Over-refusal" not in erodes
    assert "longer aligned after chat: 0.20" in more
    assert "LoX k=6 alpha=1 before: 0.40" in cost
    assert "aligned before: 0.10" in cost


def test_figure_data_and_text_are_written_together(table, tmp_path):
    text = write_frontier(table, tmp_path)
    assert (tmp_path / "frontier.md").read_text() == text
    kinds = {f.suffix for f in tmp_path.iterdir()}
    assert kinds == {".json", ".csv", ".md", ".pdf", ".png", ".svg"}
