"""The state of the panel of rank and R on the sandbox, without a browser."""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
import traitlets
from panel_parts import asking_little, closing, find, wait
from speakers import watch
from transformers import LlamaForCausalLM

from lox_kit import SafetySubspace, Store, figures, widgets
from lox_kit.attacks.presets import find_attack
from lox_kit.attacks.run import run_attack
from lox_kit.figures.plotly import rank_spec
from lox_kit.figures.rank_data import place, rank_and_r_data
from lox_kit.measures import Questions, world_questions
from lox_kit.models.prompts import Prompt
from lox_kit.studies import rank as rank_curve
from lox_kit.widgets.panels.rank import state as rank_state
from lox_kit.widgets.panels.rank.panel import ratios_html, safety_rank_text

FEW, RANKS = 4, (0, 1, 2, 4)
PAIR = ("sandbox/base", "sandbox/aligned")
_short = asking_little(rank_state, FEW=FEW)


@pytest.fixture(scope="module")
def run(aligned, tmp_path_factory):
    """Two steps of an attack."""
    attack = find_attack("arithmetic", max_steps=2)
    return run_attack(aligned, attack, tmp_path_factory.mktemp("run") / "arithmetic")


@pytest.fixture
def open_state(factored):
    """Return a function that opens a state on few prompts and ranks, and waits for its job."""

    def make(**options):
        state = widgets.RankState(factored, **{"ranks": RANKS, **options})
        wait(state)
        return state

    yield from closing(make)


@pytest.fixture(scope="module")
def filled(factored, run, tmp_path_factory):
    """A store in which all is measured of a state with this attack."""
    with Store(tmp_path_factory.mktemp("filled")) as store:
        state = widgets.RankState(factored, ranks=RANKS, attacked={"sums": run}, store=store)
        wait(state)
        measure(state)
        state.close()
        yield store


@pytest.fixture
def measured(open_state, filled, run):
    """A state of which all is measured."""
    return open_state(attacked={"sums": run}, store=filled)


def measure(state):
    assert state.run() is None
    wait(state)


# --- opening ------------------------------------------------------------------------------------


def test_the_paper_s_ranks_and_two_more_are_measured_as_far_as_they_are_stored(factored):
    assert widgets.RankState(factored).ranks == (0, 1, 2, 3, 4, 6, 8, 16, 32)
    few = SafetySubspace.from_pair(*PAIR, rank=6)
    state = widgets.RankState(few)
    assert (state.ranks, state.setting.most_k) == ((0, 1, 2, 3, 4, 6), 6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ranks": (0, 0)}, "use different whole numbers from 0"),
        ({"questions": Questions((), [Prompt("a")])}, "forbidden and allowed prompts together"),
        ({"questions": Questions([Prompt("a")])}, "forbidden and allowed prompts together"),
        ({"questions": Questions.default(PAIR[0], judge="nobody")}, "judge 'nobody': use one of"),
    ],
)
def test_wrong_options_are_refused_when_it_opens(factored, options, message):
    with pytest.raises(ValueError, match=message):
        widgets.rank(factored, **options)


def test_wrong_checkpoints_and_ranks_are_refused_when_it_opens(factored, pair, base):
    with pytest.raises(ValueError, match=r"attacked\['x'\] is a model in memory"):
        widgets.rank(factored, attacked={"x": base})
    with pytest.raises(ValueError, match="the subspace has shape"):
        widgets.rank(factored, attacked={"x": pair.aligned})
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        widgets.rank(factored, attacked={"x": "nowhere"})
    with pytest.raises(ValueError, match="holds 4 directions: factor again with rank=8"):
        widgets.rank(SafetySubspace.from_pair(*PAIR, rank=4), ranks=(0, 8))


def test_a_pair_of_another_language_has_no_prompts_and_says_so(pair, factored):
    other = SafetySubspace.from_pair(pair.base, pair.aligned, rank=8)
    state = widgets.RankState(other, attacked={"x": pair.aligned})
    assert state.job.wait(60)
    assert "give the panel questions= for the rank curve" in state.note
    assert state.missing == ["x"]
    measure(state)
    ratio = state.data["ratios"]["x"]
    assert (ratio["low"], ratio["high"]) == pytest.approx((1, 1), rel=1e-4)
    assert state.run() == "Nothing is missing: all of it has been measured."


# --- the job ------------------------------------------------------------------------------------


def test_run_measures_what_the_functions_measure_and_shows_it_on_the_way(open_state, factored, run):
    state = open_state(attacked={"sums": run, "base": PAIR[0], "folder": str(run.folder)})
    assert state.missing == ["sums", "base", "folder", None, *RANKS]
    assert (state.data["k"], state.data["rows"], state.data["ratios"]) == (6, [], {})
    seen = []

    def look(change):
        seen.append([len(change["new"]["ratios"]), *(r["r"] for r in change["new"]["rows"])])

    state.observe(look, "data")
    measure(state)
    assert seen[-1] == [3, None, *RANKS]
    assert seen == sorted(seen, key=len)
    assert len(seen[0]) < len(seen[-1])
    asked = world_questions("sandbox", "dev", FEW)
    expected = rank_curve.rank_curve(*PAIR, asked, ranks=RANKS, subspace=factored)
    assert state.curve.rows == expected.rows
    r_ft = {"sums": factored.r_ft_curve(PAIR[0], run.folder, 64)}
    assert state.r_ft.keys() == {"sums", "base", "folder"}
    for name, values in (("sums", r_ft["sums"]), ("folder", r_ft["sums"]), ("base", 0.0)):
        np.testing.assert_array_equal(state.r_ft[name], np.broadcast_to(values, (30, 65)))
    data = rank_and_r_data(factored, expected, state.r_ft, k=6)
    assert state.data == data
    assert state.missing == []


def test_cancelled_it_goes_on_and_generates_nothing_twice(open_state, run, monkeypatch):
    state = open_state(attacked={"sums": run})
    state.job._updates._interval = 0.0
    asked = watch(monkeypatch, LlamaForCausalLM, "generate")
    state.observe(lambda change: 1 in state.curve.column("r") and state.job.cancel(), "data")
    state.run()
    wait(state, "cancelled")
    assert state.missing == [2, 4]
    assert [row["r"] for row in state.data["rows"]] == [None, 0, 1]
    first = len(asked)
    assert first == 3 * 2  # three models, the forbidden and the allowed prompts
    state.unobserve_all("data")
    measure(state)
    assert len(asked) == 5 * 2
    streamed = watch(monkeypatch, SafetySubspace, "r_ft_curve")
    assert state.run() == "Nothing is missing: all of it has been measured."
    assert streamed == []


def test_what_a_store_knows_is_shown_without_a_model(open_state, run, tmp_path, monkeypatch):
    with Store(tmp_path) as store:
        first = open_state(store=store, attacked={"sums": run})
        measure(first)
        loaded = watch(monkeypatch, rank_curve, "load_model")
        streamed = watch(monkeypatch, SafetySubspace, "r_ft_curve")
        again = open_state(store=store, attacked={"sums": run})
        assert not first.job.closed  # nothing resident is moved: both may be open
        assert (again.missing, loaded, streamed) == ([], [], [])
        assert again.data == first.data
        more = open_state(store=store, ranks=(0, 1, 2, 3), attacked={"other": PAIR[1]})
        assert more.missing == ["other", 3]
        asked = watch(monkeypatch, LlamaForCausalLM, "generate")
        measure(more)
        assert len(asked) == 2
        assert len(streamed) == 1


def test_models_are_loaded_one_at_a_time(open_state, monkeypatch):
    import gc
    import weakref

    alive, most = weakref.WeakSet(), []
    real = rank_curve.load_model

    def load(*arguments, **options):
        gc.collect()
        most.append(len(alive))
        model = real(*arguments, **options)
        alive.add(model.module)
        return model

    monkeypatch.setattr(rank_curve, "load_model", load)
    measure(open_state())
    assert most == [0, 0]


# --- what is looked at --------------------------------------------------------------------------


def test_k_moves_the_line_and_r_at_once_and_kinds_are_chosen(measured, factored, run):
    state = measured
    for k in (0, 1, 13, 64):
        state.setting.k = k
        spec = rank_spec(state.data)
        assert spec["layout"]["shapes"][0]["x0"] == place(k)
        share = factored.r_ft(PAIR[0], run.folder, k)
        expected = dict(zip(share["layer"], share["r_ft"], strict=True))
        for layer in state.data["layers"]:
            assert layer["r_ft"]["sums"] == pytest.approx(expected[layer["name"]], rel=1e-5)
    state.kind = "o_proj"
    assert len(state.data["layers"]) == 4
    drawn = rank_spec(state.data)["data"][-1]  # the attack's
    shown = [y for y in drawn["y"] if y is not None]
    assert shown == [layer["r_ft"]["sums"] for layer in state.data["layers"]]
    with pytest.raises(traitlets.TraitError, match="kind='o': use one of all, q_proj"):
        state.kind = "o"
    state.reset()
    assert (state.setting.k, state.kind) == (6, "all")
    assert len(state.data["rows"]) == 1 + len(RANKS)


def test_a_k_or_a_curve_beyond_the_certified_directions_is_said_to_be(factored):
    name = next(iter(factored))
    residual = torch.full_like(factored[name].residual, 0.03)
    loose = dataclasses.replace(factored[name], residual=residual, method="krylov")
    info = {**factored.info, "layers": [name], "shapes": [list(loose.shape)]}
    state = widgets.RankState(SafetySubspace(info, factors={name: loose}), ranks=(0, 4))
    assert state.note.startswith("k=6 goes beyond the certified directions")
    state.setting.k = 0
    assert state.note.startswith("The curve: k=4 goes beyond the certified directions")


# --- what is saved ------------------------------------------------------------------------------


def test_the_code_makes_what_is_on_screen_be_it_nothing(open_state, measured, monkeypatch):
    saved = []
    monkeypatch.setattr(figures, "save_figure", lambda *named: saved.append(named))  # takes seconds
    empty, own = (
        open_state(),
        open_state(ranks=(0, 2), questions=world_questions("sandbox", "dev", 2)),
    )
    measure(own)
    for state, k, kind in ((empty, 6, "all"), (own, 6, "all"), (measured, 3, "up_proj")):
        state.setting.k, state.kind = k, kind
        exec(compile(state.code(), "code", "exec"), {})
        assert saved.pop() == (state.figure_data(), state.figure_name)


# --- words --------------------------------------------------------------------------------------


def test_the_safety_rank_is_put_into_words(measured):
    state = measured
    assert safety_rank_text(state.data | {"rows": []}, state.ranks) == ""
    rank = state.curve.safety_rank(PAIR[1])
    text = safety_rank_text(state.data, state.ranks)
    assert text.startswith(f"Safety rank {rank}: the smallest r measured whose ASR is less than 1")
    assert re.search(rf"Help with allowed requests there: \d+% \(\d+ of {FEW}, ", text)
    assert f"With n = {FEW} a single answer is 25.0 points." in text
    rows = state.data["rows"]
    none = state.data | {"safety_rank": None}
    assert "above 4" in safety_rank_text(none, state.ranks)
    assert "not found so far" in safety_rank_text(none | {"rows": rows[:2]}, state.ranks)
    assert "not known before" in safety_rank_text(none | {"rows": rows[1:]}, state.ranks)


def test_names_that_people_gave_are_escaped(open_state, run):
    name = "<img src=x onerror=alert(1)>"
    state = open_state(attacked={name: run, "later": PAIR[1]})
    assert "&lt;img src=x" in ratios_html(state.data, list(state.attacked))
    state.r_ft[name] = state.subspace.r_ft_curve(PAIR[0], run.folder, 64)
    state.setting.k = 5
    html = ratios_html(state.data, list(state.attacked))
    drawn = json.dumps(rank_spec(state.data))
    for text in (html, drawn):
        assert "&lt;img src=x" in text
        assert "<img" not in text
    assert html.count("not measured") == 1
    state.setting.k = 0
    assert "no direction, no ratio" in ratios_html(state.data, list(state.attacked))


# --- the panel ----------------------------------------------------------------------------------


def test_controls_and_state_move_together(factored, run):
    panel = widgets.rank(factored, attacked={"sums": run}, ranks=RANKS)
    wait(panel.state)
    find(panel, "lox-run").click()
    wait(panel.state)
    find(panel, "lox-k").value = 9
    find(panel, "lox-kind").value = "v_proj"
    assert "at k = 9, v_proj" in find(panel, "lox-ratios").value
    assert find(panel, "lox-rank").layout.yaxis2.title.text == "R at k = 9"
    assert find(panel, "lox-found").value.startswith("Safety rank")
    find(panel, "lox-run").click()
    assert "Nothing is missing" in panel.message.value
    panel.state.setting.classroom = True
    assert find(panel, "lox-rank").layout.font.size == 18
    panel.close()
