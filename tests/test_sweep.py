"""The sweep over k and alpha, the setting that is chosen from it, and what both look like."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
from speakers import watch

from lox_kit import ATTACKS, LoxDial, SafetySubspace, find_attack, load_model
from lox_kit.figures import figure_choice, figure_sweep, grid_shares, redraw
from lox_kit.measures import Share, measure_drift, share_fields, world_questions
from lox_kit.reports import choice_text, write_choice, write_sweep
from lox_kit.studies import (
    NONE,
    AttackTable,
    choose,
    coarse_to_fine,
    report_choice,
    setting,
    sweep,
)
from lox_kit.studies import entries as computing

# --- the order ----------------------------------------------------------------------------------


def walked(shape, budget, gain):
    """Return the cells that a budget holds, in order."""
    gains, order = {}, []
    for cells in coarse_to_fine(shape, budget, gains):
        order += cells
        gains |= {cell: gain(cell) for cell in cells}
    return order


def far(cell):
    """Gain most near (1, 4)."""
    return -abs(cell[0] - 1) - abs(cell[1] - 4)


@pytest.mark.parametrize("shape", [(5, 6), (1, 1), (1, 7), (9, 2), (3, 3)])
def test_the_order_covers_the_grid_and_repeats_nothing_at_every_budget(shape):
    size = shape[0] * shape[1]
    for budget in range(1, size + 1):
        order = walked(shape, budget, far)
        assert len({*order}) == len(order) == budget
    assert {*order} == {*np.ndindex(shape)}


def test_a_larger_budget_begins_with_the_cells_of_a_smaller_one():
    whole = walked((5, 6), 29, far)
    assert all(walked((5, 6), n, far) == whole[:n] for n in range(1, 29))


def test_the_coarse_cells_are_first_and_then_the_neighbours_of_the_best():
    order = walked((5, 6), 14, far)
    assert {*order[:9]} == {*itertools.product((0, 2, 4), (0, 2, 5))}
    assert {*order[9:12]} == {(1, 5), (0, 4), (1, 4)}  # beside (0, 5): (2, 5) gains as much
    assert {*order[12:14]} == {(0, 3), (1, 3)}  # beside (1, 4), smallest alpha first


# --- the sweep ----------------------------------------------------------------------------------

GRID = {"ks": (1, 2, None), "alphas": (0.5, 1.0, 1.5), "attacks": ["context", "forbidden"]}


@pytest.fixture
def computed(monkeypatch):
    """Return what is computed, every entry in no time: ASR falls along alpha, and help along k."""

    def compute(questions, runs, keep, entry):
        arm, n = entry.arm, len(questions.forbidden)
        alpha = arm.alpha if arm.is_edit else 0.0
        asr = max(0, n - round(2 * alpha)) if entry.attack else 0
        counts = {"asr": asr, "helpfulness": n - (arm.k is None), "over_refusal": 0, "refusal": n}
        read = {kind: "y" * count + "n" * (n - count) for kind, count in counts.items()}
        return {m: share_fields(Share(c, n)) for m, c in counts.items()}, read, {}

    drift = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 4}
    monkeypatch.setattr(computing, "_drift", lambda questions, entry: drift)
    monkeypatch.setattr(computing, "compute", compute)
    return watch(monkeypatch, computing, "compute")


def arms_of(table):
    """Return the settings that were tried."""
    return set(table.column("arm")) - {"aligned"}


def test_a_budget_is_kept_and_a_larger_one_computes_the_difference(computed, store):
    few = sweep(**GRID, limit=4, budget=3, store=store)
    assert len(arms_of(few)) == 3
    assert len(computed) == 3 * (1 + 3)  # before and two attacks; and the aligned model
    assert len(few.source["sweep"]["untried"]) == 6
    assert not arms_of(few) & {*few.source["sweep"]["untried"]}
    more = sweep(**GRID, limit=4, budget=5, store=store)
    assert arms_of(few) < arms_of(more)
    assert len(computed) == 3 * (1 + 5)
    whole = sweep(**GRID, limit=4, store=store)
    assert len(computed) == 3 * (1 + 9)
    assert whole.source["sweep"]["untried"] == []
    assert {row["drift"]["value"] for row in whole.rows if not row["attack"]} == {0.5}


def test_a_sweep_that_was_cut_resumes(computed, store):
    def cut(what, done, total):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(**GRID, limit=4, budget=3, store=store, on_stage=cut)
    assert len(computed) == store.count("table") == 5
    sweep(**GRID, limit=4, budget=3, store=store)
    assert len(computed) == 12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ks": ()}, "a sweep takes a k, an alpha, an attack and allowed requests"),
        ({"ks": (0, 6)}, "use k of at least 1 and alpha above 0"),
        ({"alphas": (0.0, 1.0)}, "use k of at least 1 and alpha above 0"),
        ({"alphas": (-1.0,)}, "alpha=-1.0: use a finite number >= 0"),
        ({"budget": 0}, "budget=0: use at least 1 setting"),
    ],
)
def test_what_cannot_be_swept_is_refused_before_anything_is_computed(
    computed, store, options, message
):
    with pytest.raises(ValueError, match=message):
        sweep(**GRID | options, store=store)
    assert not computed


def test_settings_are_one_model_on_a_dial_with_the_numbers_and_the_drift_of_their_own(
    store, monkeypatch
):
    pair = ("sandbox/base", "sandbox/aligned")
    monkeypatch.setitem(ATTACKS, "forbidden", find_attack("forbidden", max_steps=1))
    loaded = watch(monkeypatch, computing, "load_model")
    dials = watch(monkeypatch, computing, "LoxDial")
    computing._on_dial.cache_clear()
    found = sweep((6, None), (1.0,), ["forbidden"], limit=3, store=store)
    assert (len(dials), len(loaded)) == (1, 3)  # aligned, on the dial, and whose drift is none
    model, asked = load_model(pair[1]), world_questions("sandbox", "dev", 3)
    dial = LoxDial(model, SafetySubspace.from_pair(*pair, rank="full"))
    for k, name in ((6, "k=6 alpha=1"), (None, "k=all alpha=1")):
        dial.set(k=k, alpha=1.0)
        moved = measure_drift(model, load_model(pair[1]), asked.allowed, **asked.how)
        (row,) = (row for row in found.rows if row["arm"] == name and not row["attack"])
        assert row["drift"]["value"] == pytest.approx(moved.mean_kl.value, abs=1e-6)
        assert row["readings"].keys() == {"forbidden", "allowed", "asr", "helpfulness"}
        for kind, measure in (("asr", "asr"), ("helpfulness", "helpfulness")):
            assert row["readings"][kind].count("y") == row["measures"][measure]["count"]


# --- the choice ---------------------------------------------------------------------------------

# of ten requests, by k and alpha: help before, and ASR after each of two attacks
COUNTS = {
    (1, 0.5): (10, 7, 5),
    (1, 1.0): (10, 3, 4),
    (2, 0.5): (9, 3, 1),
    (2, 1.0): (9, 3, 3),
    (None, 0.5): (9, 0, 3),
    (None, 1.0): (6, 0, 1),
}


def made(counts=COUNTS, *, readings=True):
    """Return a sweep by hand; its first requests are those that are counted."""
    arms = {"aligned": None} | {setting(*at).name: setting(*at) for at in counts}
    rows = []
    for name, (help_, *after) in zip(arms, [(10, 8, 9), *counts.values()], strict=True):
        for attack, asr in zip((None, "one", "two"), (0, *after), strict=True):
            shares = {"asr": asr, "helpfulness": help_, "over_refusal": 10 - help_, "refusal": 5}
            read = {kind: "y" * shares[kind] + "n" * (10 - shares[kind]) for kind in shares}
            row = {"attack": attack, "training": "full", "arm": name, "seed": 0}
            row["measures"] = {m: share_fields(Share(n, 10)) for m, n in shares.items()}
            row |= {} if attack else {"drift": {"value": help_ / 10, "low": 0, "high": 1, "n": 10}}
            rows.append(row | {"readings": read if readings else {}})
    about = {
        "world": "sandbox",
        "pair": None,
        "attacks": ["one", "two"],
        "untried": ["k=2 alpha=2"],
    }
    about |= {"ks": [1, 2, None], "alphas": [0.5, 1.0], "budget": None}
    edits = {name: dataclasses.asdict(arm) for name, arm in arms.items() if arm}
    source = {"arms": edits, "judge": "rule", "questions": "", "sweep": about}
    return AttackTable(tuple(rows), source)


@pytest.mark.parametrize(
    ("loss", "chosen"),
    [
        (0.0, "k=1 alpha=1"),  # the two that lose nothing: at worst 7, and 4
        (0.1, "k=2 alpha=0.5"),  # 3 at worst, as k=2 alpha=1 and k=all alpha=.5
        (0.4, "k=all alpha=1"),
    ],
)
def test_the_setting_has_the_lowest_worst_asr_and_ties_go_to_smaller_alpha_then_k(loss, chosen):
    assert choose(made(), loss).chosen == chosen


def test_the_front_holds_what_nothing_beats_in_both():
    front = choose(made(), 0.0).front
    assert set(front) == {
        f"k={at}"
        for at in ("1 alpha=1", "2 alpha=0.5", "2 alpha=1", "all alpha=0.5", "all alpha=1")
    }


def test_where_every_setting_loses_too_much_none_is_chosen_and_it_says_so(store):
    choice = choose(made({at: (8, 0, 0) for at in COUNTS}), 0.1)
    assert choice.chosen is None
    assert choice.often == {NONE: 1.0} or choice.often[NONE] > 0.5
    assert choice_text(choice).startswith(
        "No setting loses at most 0.1 of help: the nearest is k=1"
    )
    with pytest.raises(ValueError, match="no setting loses at most"):
        report_choice(choice, "forbidden", store=store)


def test_resamples_agree_where_the_numbers_leave_no_doubt_and_not_where_they_are_close():
    sure = choose(made({(1, 1.0): (10, 0, 0), (2, 1.0): (10, 10, 10)}), 0.0)
    assert sure.often == {"k=1 alpha=1": 1.0}
    close = choose(made({(1, 1.0): (10, 5, 0), (2, 0.5): (10, 0, 6)}), 0.0)
    assert close.chosen == "k=1 alpha=1"
    # the sixth request is left out of a resample with probability .9^10: then it is a tie
    assert close.often["k=2 alpha=0.5"] == pytest.approx(0.9**10, abs=0.03)
    assert sum(close.often.values()) == pytest.approx(1)
    assert choose(made(readings=False), 0.0).often == {}


def test_the_rival_along_all_directions_is_the_one_of_nearest_help():
    assert choose(made(), 0.1).equal_help == "k=all alpha=0.5"
    assert choose(made(), 0.4).equal_help == "k=all alpha=1"


def test_a_choice_is_reported_on_what_did_not_make_it(store):
    with pytest.raises(ValueError, match="one: the setting was chosen on this attack"):
        report_choice(choose(made(), 0.1), "one", store=store)
    table = made()
    table.source["questions"] = world_questions("sandbox").with_help().key
    with pytest.raises(ValueError, match="chosen on these requests"):
        report_choice(choose(table, 0.1), "forbidden", store=store)


def test_the_report_has_paired_tests_against_every_other(computed, store, tmp_path):
    choice = choose(made(), 0.1)
    asked = world_questions("sandbox", limit=4)
    report = report_choice(choice, "forbidden", questions=asked, store=store)
    assert report.column("arm") == [
        "aligned",
        "chosen (k=2 alpha=0.5)",
        "the paper's (k=6 alpha=1.25)",
        "all directions (k=all alpha=0.5)",
    ]
    write_choice(choice, tmp_path, report)
    *_, first, _, _, _, _, last, _ = (tmp_path / "choice.md").read_text().split("\n")
    assert first.startswith("- ASR of chosen (k=2 alpha=0.5) after forbidden: 0.75 [")
    assert "aligned after forbidden: 1.00 [" in first
    assert "difference -0.25 [" in first  # alpha=.5 takes one of four
    assert "0 against 1 requests, exact McNemar p = 1." in first
    assert "Help of chosen (k=2 alpha=0.5) before: 1.00 [" in last
    assert "all directions (k=all alpha=0.5) before: 0.75 [" in last


# --- figures and words --------------------------------------------------------------------------


def test_the_cells_of_the_figure_hold_the_table_s_numbers_with_their_intervals():
    table = made({at: counts for at, counts in COUNTS.items() if at != (2, 1.0)})
    data = {"figure": "sweep", **table.to_dict()}
    assert grid_shares(data, "asr", "two")[None, 0.5] == Share(3, 10)
    panels = {ax.get_title(): ax for ax in figure_sweep(data).axes if ax.get_title()}
    assert list(panels) == [
        "help before (aligned 1.00)",
        "over-refusal before (aligned .00)",
        "ASR after one (aligned .80)",
        "ASR after two (aligned .90)",
    ]
    ax = panels["ASR after two (aligned .90)"]
    texts = {(text.get_position(), text.get_text()) for text in ax.texts}
    assert ((2, 0), ".30") in texts
    low, high = Share(3, 10).interval
    assert ((2, 0), f"{low:.2f}–{high:.2f}".replace("0.", ".")) in texts
    assert len(ax.texts) == 2 * 5  # (2, 1.0) was not tried
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "2", "all"]


def test_the_figure_of_the_choice_has_every_point_and_the_least_help():
    fig = figure_choice({"figure": "choice", **choose(made(), 0.1).to_dict()})
    (ax,) = fig.axes
    at = {bars.get_label(): bars[0].get_xydata().tolist() for bars in ax.containers}
    assert at["chosen"] == [[0.9, 0.3]]
    assert at["aligned"] == [[1.0, 0.9]]
    assert len(ax.containers) == 7
    assert [0.9, 0.9] in [line.get_xdata() for line in ax.lines if len(line.get_xdata()) == 2]


def test_a_sweep_is_written_read_back_chosen_from_and_redrawn(lox, tmp_path):
    table = made()
    text = write_sweep(table, tmp_path)
    (row,) = (line for line in text.splitlines() if line.startswith("| k=2 alpha=0.5 | 0.90 ["))
    assert row.endswith(" | 0.9000 |")
    assert "Not tried: k=2 alpha=2." in text
    done = lox("choose", tmp_path / "sweep.json", "--loss", ".1", "-o", tmp_path)
    assert done.status == 0, done.err
    assert "**k=2 alpha=0.5**: the largest ASR after an attack is 0.30" in done.out
    for name in ("sweep", "choice"):
        kinds = {file.suffix for file in tmp_path.glob(f"{name}.*")}
        assert kinds == {".json", ".csv", ".md", ".pdf", ".png", ".svg"}
        before = (tmp_path / f"{name}.png").read_bytes()
        redraw(tmp_path / f"{name}.json")
        assert (tmp_path / f"{name}.png").read_bytes() == before


def test_the_verb_sweeps_a_world_with_settings_of_its_own(lox, computed, tmp_path):
    grid = ("-k", "1,all", "--alphas", ".5,1", "--attacks", "forbidden", "--limit", 2)
    done = lox("sweep", *grid, "--budget", 3, "-o", tmp_path)
    assert (tmp_path / "sweep.md").read_text().rstrip() in done.out  # line by line
    assert done.status == 0, done.err
    about = json.loads((tmp_path / "sweep.json").read_text())["source"]["sweep"]
    assert (about["ks"], about["alphas"], about["attacks"]) == (
        [1, None],
        [0.5, 1.0],
        ["forbidden"],
    )
    assert about["untried"] == ["k=all alpha=1"]
    (tmp_path / "other.json").write_text(json.dumps({"rows": [], "source": {}}))
    assert "make one with `lox sweep`" in lox("choose", tmp_path / "other.json").err
