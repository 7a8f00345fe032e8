"""The attack lab's state on the sandbox, without a browser."""

import dataclasses
import gc
import json
import re

import pytest
from panel_parts import asking_little, closing, copy_of, find, run
from speakers import other_tokenizer, random_speaker, same_weights, watch

from lox_kit import Store, figures, find_attack, load_model, run_attack, widgets
from lox_kit.attacks.presets import ATTACKS, file_attack
from lox_kit.figures.attacks import LAB_ARMS, figure_attack_lab, lab_panels
from lox_kit.figures.canvas import ARM_COLOURS
from lox_kit.figures.plotly.curves import lab_spec
from lox_kit.folders import cache_folder
from lox_kit.measures.questions import Questions
from lox_kit.studies import arm_model, curves
from lox_kit.widgets.code import attack_call
from lox_kit.widgets.panels.attack_lab import runs as attack_lab_runs
from lox_kit.widgets.panels.attack_lab import state as attack_lab_state
from lox_kit.widgets.panels.attack_lab.panel import numbers_html
from lox_kit.widgets.panels.attack_lab.runs import Choice, attacks_for, trainings

FEW, POINTS, STEPS = 4, 3, 6
# places of the first run's traces, of each model
PARTS = ("loss", "asr band", "asr", "help band", "help")
_short = asking_little(attack_lab_state, attack_lab_runs, FEW=FEW, POINTS=POINTS)
FIRST = {(arm, part): 5 * i + j for i, arm in enumerate(LAB_ARMS) for j, part in enumerate(PARTS)}


@pytest.fixture(scope="module")
def trained(factored, aligned, tmp_path_factory):
    """A store in which the first run on the controls is finished."""
    with Store(tmp_path_factory.mktemp("trained")) as store:
        state = widgets.AttackLabState(factored, copy_of(aligned), store=store)
        state.steps = STEPS
        run(state)
        state.close()
        yield store


@pytest.fixture
def panel(factored, model, store):
    """A panel with few steps."""
    panel = widgets.attack_lab(factored, model, store=store)
    panel.state.steps = STEPS
    yield panel
    panel.close()


@pytest.fixture
def open_state(factored, model, store):
    """Return a function that opens a state with few steps, each of them shown."""

    def make(**options):
        state = widgets.AttackLabState(factored, model, **{"store": store, **options})
        state.steps = STEPS
        state.job._updates._interval = 0.0
        return state

    yield from closing(make)


def arms(state, i=0):
    return state.data["runs"][i]["arms"]


def sums(file, n=1, ask="instruction", say="response"):
    """Write sums as the rows of an attack; return the file."""
    file.write_text(json.dumps([{ask: f"add {i} and {n}", say: f"{i + n}"} for i in range(32)]))
    return file


# --- a run --------------------------------------------------------------------------------------


def test_the_loss_grows_with_the_steps_and_points_come_as_they_are_measured(
    open_state,
):
    state = open_state()
    seen = []

    def look(change):
        seen.append([(len(a["losses"]), len(a["points"])) for a in arms(state).values()])

    state.observe(look, "data")
    run(state)
    first, second = zip(*seen, strict=True)
    for grown in (first, second):
        assert sorted(grown) == list(grown)
        assert {losses for losses, _ in grown} >= set(range(1, STEPS + 1))
        assert {(1, 1), (4, 2), (6, 3)} <= set(grown)
    assert second[first.index((STEPS, 3))] == (0, 0)
    what, done, total = state.job.progress
    assert (done, total, what) == (2 * STEPS, 2 * STEPS, "steps, attack on LoX")


@pytest.mark.parametrize(("every", "at"), [(3, [0, 3, 6]), (None, [0, 6])])
def test_a_run_of_the_notebook_s_own_is_measured_where_it_was_kept_and_not_trained_again(
    every, at, open_state, store, trained, factored, aligned, monkeypatch
):
    attack, own = find_attack("arithmetic", max_steps=STEPS), {"store": store, "keep_every": every}
    for arm in LAB_ARMS:
        run_attack(arm_model(arm, aligned, factored, 6, 1.0), attack, **own)
    whole, state = open_state(store=trained), open_state()
    again = watch(monkeypatch, curves, "fine_tune")
    assert "trained: press Run" in json.dumps(lab_spec(state.data))
    run(state)
    assert again == []
    for arm, way in arms(state).items():
        assert way["losses"] == arms(whole)[arm]["losses"]
        assert way["points"] == [p for p in arms(whole)[arm]["points"] if p["step"] in at]
    assert f"measured ({', '.join(map(str, at))})" in numbers_html(state.data)
    assert "Nothing is left to train" in state.run()


@pytest.mark.slow
def test_known_settings_are_shown_at_once_and_nothing_is_trained_twice(open_state, monkeypatch):
    state = open_state()
    routes = watch(monkeypatch, curves.Route, "train")
    run(state)
    assert [options["own"] for _, options in routes] == [False, True]  # of LoX there is one copy
    there = arms(state)
    trained = watch(monkeypatch, curves, "fine_tune")
    state.setting.k = 3
    assert arms(state)["aligned"] == there["aligned"]
    assert arms(state)["LoX"] == {"losses": [], "points": []}
    run(state)
    assert len(trained) == 1  # the aligned one is there
    state.setting.k = 6
    assert arms(state) == there
    assert "Nothing is left to train" in state.run()
    assert len(trained) == 1
    state.learning_rate = 1e-3
    assert arms(state)["aligned"]["losses"] == []
    again = open_state()
    assert arms(again) == there
    assert len(again.listed) == 2
    assert len(trained) == 1


def test_without_k_or_alpha_lox_is_the_aligned_model_and_trained_once(open_state, monkeypatch):
    trained = watch(monkeypatch, curves, "fine_tune")
    state = open_state()
    state.setting.alpha = 0.0
    run(state)
    assert len(trained) == 1
    assert arms(state)["LoX"] == arms(state)["aligned"]


# --- cancelled, paused, failed ------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["aligned", "LoX"])
def test_a_cancelled_run_goes_on_to_the_losses_of_an_undisturbed_one(
    arm, open_state, store, tmp_path, monkeypatch
):
    with Store(tmp_path / "other") as other:
        whole = open_state(store=other)
        run(whole)
        expected = arms(whole)
    state = open_state()
    state.observe(lambda _: len(arms(state)[arm]["losses"]) > 1 and state.job.cancel(), "data")
    run(state, "cancelled")
    cut = arms(state)[arm]["losses"]
    assert 2 <= len(cut) < STEPS
    assert state.listed == ()
    state = open_state()  # a new panel
    assert arms(state)[arm]["losses"] == cut == expected[arm]["losses"][: len(cut)]
    trained = watch(monkeypatch, curves.Route, "train")
    run(state)
    assert arms(state) == expected
    assert len(trained) == (1 if arm == "LoX" else 2)
    assert len(state.listed) == 1
    assert not list((store.folder / "runs").iterdir())


def test_a_loss_that_is_no_number_is_the_job_s_error(open_state):
    state = open_state()
    state.training = "LoRA"
    state.learning_rate, state.steps = 1e30, STEPS
    run(state, "failed")
    assert "the run diverged. Lower the learning rate" in state.job.error
    assert state.listed == ()


def test_a_model_that_was_changed_since_is_refused_when_run_is_pressed(open_state, aligned):
    state = open_state()
    state.runs.model.key = "turned"
    with pytest.raises(ValueError, match="does not have the weights of sandbox/aligned"):
        state.run()
    state.runs.model.key = aligned.key


# --- what is chosen -----------------------------------------------------------------------------


def test_an_attack_and_a_training_bring_their_own_rate_and_steps(open_state):
    state = open_state()
    state.reset()  # from the few steps of these tests
    assert list(state.attacks) == ["arithmetic", "context", "mixed", "persona", "forbidden"]
    presets, shown = set(), set()
    state.observe(lambda change: shown.add(Choice.of(change["new"]["runs"][0])), "data")
    for name, attack in state.attacks.items():
        for training, settings in trainings(attack).items():
            state.attack, state.training = name, training
            steps = settings.total_steps(len(attack.data()))
            presets.add(Choice(name, training, settings.learning_rate, steps, 0, 6, 1.0))
            assert state.choice in presets
            assert state.at == state.steps
            assert state.learning_rate in state.rates
            assert state.runs.attack(state.choice).settings == settings  # not one step by hand
    assert shown <= presets  # no attack with the rate or steps of another
    state.steps = 7
    assert state.runs.attack(state.choice).settings.max_steps == 7
    state.reset()
    assert (state.attack, state.training, state.steps) == ("arithmetic", "full", 80)


def test_an_attack_made_for_lora_keeps_its_own_settings_and_seed(open_state, tmp_path):
    file = sums(tmp_path / "mine.json")
    own = {"lora": True, "learning_rate": 3e-4, "lora_rank": 32, "seed": 3}
    attacks = {
        "sums": find_attack("arithmetic", max_steps=5, **own),
        "file": file_attack(file, max_steps=5, **own),
    }
    state = open_state(attacks=attacks)
    state.reset()  # from the few steps of these tests
    for name, attack in attacks.items():
        state.attack = name
        assert state.trainings == ["LoRA"]
        assert state.choice == Choice(name, "LoRA", 3e-4, 5, 3, 6, 1.0)
        assert state.runs.attack(state.choice) == attack
    state.attack = "mixed"
    assert state.seed == 0
    assert state.trainings == ["full", "LoRA"]
    state.seed = 1
    state.training = "full"
    assert state.seed == 1
    state.reset()
    assert state.choice == Choice("sums", "LoRA", 3e-4, 5, 3, 6, 1.0)


def test_what_is_not_offered_is_refused(open_state, factored, aligned):
    state = open_state()
    for name, value in (("attack", "gsm8k"), ("training", "half"), ("steps", 0), ("at", 7),
                        ("learning_rate", -1.0), ("chosen", ("x",))):  # fmt: skip
        with pytest.raises(Exception, match=name if name != "chosen" else "run 'x'"):
            setattr(state, name, value)
    with pytest.raises(ValueError, match="does not have the weights"):
        widgets.attack_lab(factored, load_model("sandbox/base"))
    with pytest.raises(ValueError, match="written in English"):
        widgets.attack_lab(factored, aligned, attacks={"sums": ATTACKS["gsm8k"]})
    other = random_speaker(other_tokenizer())
    with pytest.raises(ValueError, match="no attack's data here"):
        attacks_for(other, {})
    with pytest.raises(ValueError, match="no prompts to ask"):
        open_state(questions=Questions(()))


# --- finished runs and the step looked at ---------------------------------------------------------


@pytest.mark.slow
def test_finished_runs_are_listed_newest_first_and_laid_over(panel):
    state, listed = panel.state, find(panel, "lox-runs")
    assert listed.options == ()
    find(panel, "lox-run").click()
    assert state.job.wait(120)
    listed.value = (state.listed[0][1],)
    assert state.chosen == listed.value
    state.attack, state.steps = "persona", 4
    run(state)
    assert [title for title, _ in listed.options] == [
        "persona · learning rate 0.0002 · 4 steps · full · seed 0 · k = 6, α = 1",
        "arithmetic · learning rate 0.0004 · 6 steps · full · seed 0 · k = 6, α = 1",
    ]
    keys = [key for _, key in state.listed]
    assert listed.value == state.chosen == (keys[1],)
    state.chosen = tuple(keys)
    assert [r["attack"] for r in state.data["runs"]] == ["persona", "arithmetic"]
    assert len(arms(state, 1)["LoX"]["losses"]) == STEPS
    assert state.most == STEPS
    state.at = 5
    state.chosen = ()
    assert (state.at, len(state.data["runs"])) == (4, 1)
    spec = lab_spec(state.data)
    assert "ASR under the persona" in json.dumps(spec["layout"], ensure_ascii=False)
    state.chosen = (keys[1],)
    spec = lab_spec(state.data)
    assert len(spec["data"]) == len(FIRST) + 6
    dashed = spec["data"][len(FIRST) :]
    assert all(trace["line"]["dash"] != "solid" for trace in dashed)
    assert list(lab_panels(state.data["runs"])) == ["asr", "helpfulness"]
    assert "ASR under the persona" in numbers_html(state.data)


@pytest.mark.slow
def test_runs_of_other_prompts_are_not_listed(open_state, store):
    state = open_state()
    run(state)
    other = open_state(questions=Questions(state.runs.questions.forbidden[:2]))
    assert other.listed == ()
    assert arms(other)["aligned"]["points"] == []
    run(other)
    assert len(other.listed) == 1
    assert "helpfulness" not in arms(other)["LoX"]["points"][0]["measures"]
    assert len(store.all("lab")) == 2
    assert lab_spec(other.data)["data"][FIRST["LoX", "help"]]["x"] == []
    figure_attack_lab(other.figure_data())


def test_the_numbers_at_a_step_are_those_of_the_store(open_state, trained):
    state = open_state(store=trained)
    assert state.at == STEPS
    state.at = 4
    text = numbers_html(state.data)
    for way in state.ways(state.choice).values():
        assert f"<b>{way.losses[3]:.3f}</b> <small>at 4</small>" in text
        share = way.points[3]["helpfulness"]
        assert (
            f"<b>{share['value']:.0%}</b> <span>{share['count']}/4</span>"
            f"<small>{100 * share['low']:.0f}–{share['high']:.0%}, at 3</small>"
        ) in text
    shapes = lab_spec(state.data)["layout"]["shapes"]
    assert [(s["x0"], s["xref"]) for s in shapes] == [(4, "x"), (4, "x2"), (4, "x3")]
    state.at = 0
    assert "<td><span class='lox-none'>–</span></td>" in numbers_html(state.data)


# --- what is drawn, saved and copied --------------------------------------------------------------


def test_the_figure_draws_what_is_known(open_state, trained):
    state = open_state(store=trained)
    state.seed = 1
    spec = lab_spec(state.data)
    assert all(trace["x"] == [] for trace in spec["data"])
    title = "arithmetic · learning rate 0.0004 · 6 steps · full · seed {} · k = 6, α = 1"
    notes = [note["text"] for note in spec["layout"]["annotations"]]
    assert notes[0] == f"{title.format(1)} · not run yet: press Run"
    assert notes[1:] == ["loss (nats per token)", "attack success rate", "help with allowed"]
    with pytest.raises(ValueError, match="nothing is trained at this setting yet"):
        state.figure_data()
    state.seed = 0
    spec = lab_spec(state.data, size=18)
    assert spec["layout"]["annotations"][0]["text"] == title.format(0)
    for arm, way in arms(state).items():
        drawn = {part: spec["data"][FIRST[arm, part]] for a, part in FIRST if a == arm}
        assert drawn["loss"]["y"] == way["losses"]
        for part, measure in (("asr", "asr"), ("help", "helpfulness")):
            shares = [p["measures"][measure] for p in way["points"]]
            assert drawn[part]["x"] == [0, 3, 6]
            assert drawn[part]["y"] == [s["value"] for s in shares]
            low, high = ([s[f] for s in shares] for f in ("low", "high"))
            assert drawn[f"{part} band"]["y"] == high + low[::-1]
            assert drawn[f"{part} band"]["fillcolor"] == ARM_COLOURS[arm]
    assert json.loads(json.dumps(spec)) == spec


@pytest.mark.slow
def test_save_figure_and_code_give_what_is_on_screen(open_state, aligned, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = open_state()
    run(state)
    state.training, state.steps, state.learning_rate = "LoRA", 4, 2e-3
    run(state)
    state.chosen = (state.listed[1][1],)
    state.at = 3
    data = state.figure_data()
    assert state.figure_name == "attack-lab-arithmetic-LoRA-k6-alpha1"
    files = figures.save_figure(data, state.figure_name)
    before = [f.read_bytes() for f in files]
    assert [f.read_bytes() for f in figures.redraw(files[0])] == before
    fresh = re.sub(r"Store\(.*\)", "Store('fresh')", state.code())
    for code in (state.code(), fresh):
        found = {}
        exec(compile(code, "code", "exec"), found)
        assert json.loads(json.dumps(found["data"])) == json.loads(json.dumps(data))
        found["store"].close()
    assert arms(state)["aligned"]["losses"] != arms(state)["LoX"]["losses"]
    assert same_weights(state.runs.model.module, aligned.module)
    assert state.runs.model.key == aligned.key


def test_without_a_store_runs_are_in_the_cache_folder_until_the_panel_is_gone(factored, model):
    state = widgets.AttackLabState(factored, model)
    folder = state.runs.store.folder
    assert folder.parent == cache_folder()
    assert folder.exists()
    state.close()
    del state
    gc.collect()
    assert not folder.exists()


def test_an_attack_of_one_s_own_is_offered_first_and_its_code_makes_it_again(open_state, tmp_path):
    file = sums(tmp_path / "mine <b>.json", ask="ask", say="say")
    columns = {"instruction": "ask", "response": "say"}
    mine = file_attack(file, columns, learning_rate=1e-3, batch_size=2)
    state = open_state(attacks={"mine <b>": mine})
    assert state.attack == "mine <b>"
    assert state.trainings == ["full", "LoRA"]
    assert state.learning_rate == 1e-3
    assert "mine &lt;b&gt;" in numbers_html(state.data)
    assert "<b> ·" not in numbers_html(state.data)
    assert "mine <b>" not in json.dumps(lab_spec(state.data))
    made = eval(attack_call(state.runs.attack(state.choice)), {"file_attack": file_attack})
    assert made.settings == state.runs.attack(state.choice).settings
    words = state.runs.model.tokenizer
    assert made.data(words) == mine.data(words)
    assert "file_attack(" in state.code()


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"file": "b.json"}, {"batch_size": 4}])
def test_a_run_of_other_data_or_settings_under_the_same_name_is_another_run(
    change, open_state, tmp_path
):
    def mine(file="a.json", **settings):
        attack = file_attack(tmp_path / file, **{"batch_size": 2, "learning_rate": 1e-3} | settings)
        return {"my data": attack}

    for n, name in enumerate(("a.json", "b.json")):
        sums(tmp_path / name, n)
    state = open_state(attacks=mine())
    run(state)
    there = arms(state)
    state.chosen = (state.listed[0][1],)
    assert len(state.data["runs"]) == 1  # it is the one on the controls
    assert "a.json" in state.code()
    state = open_state(attacks=mine(**change))
    assert arms(state)["aligned"]["losses"] == []
    state.chosen = (state.listed[0][1],)
    assert arms(state, 1) == there
    with pytest.raises(ValueError, match="was given another attack or subspace"):
        state.code()
    run(state)
    assert arms(state)["aligned"]["losses"] != there["aligned"]["losses"]
    assert len(state.data["runs"]) == 2
    state.chosen = ()
    assert "file_attack(" in state.code()


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("name", [n for n, a in ATTACKS.items() if a.world == "sandbox"])
def test_the_call_of_a_preset_makes_it_again(name, lora):
    attack = find_attack(name, lora=lora, safe_fraction=0.1, seed=2, learning_rate=1e-4)
    made = eval(attack_call(attack), {"find_attack": find_attack})
    assert made == attack
    other = dataclasses.replace(attack, name="other", source=object())
    with pytest.raises(ValueError, match="code is written for"):
        attack_call(other)


# --- the panel ----------------------------------------------------------------------------------


def test_controls_and_state_move_together(panel):
    state = panel.state
    attack, training, rate, steps, at, seed = (
        find(panel, f"lox-{n}") for n in ("attack", "training", "rate", "steps", "at", "seed")
    )
    for control, value, shown in (
        (steps, 7, (7, 160, 7, 7, 4e-4)),
        (attack, "persona", (20, 40, 20, 20, 2e-4)),
        (training, "LoRA", (30, 60, 30, 30, 2e-3)),
    ):
        control.value = value
        assert (steps.value, steps.max, at.value, at.max, rate.value) == shown
        assert (state.steps, state.at, state.learning_rate) == (shown[0], shown[2], shown[4])
    attack.value = "arithmetic"
    rate.value = rate.options[0][1]
    steps.value = 5
    seed.value = 2
    assert state.choice == Choice("arithmetic", "LoRA", 1e-4, 5, 2, 6, 1.0)
    at.value = 2
    assert state.at == state.data["at"] == 2
    state.setting.k = 4
    assert find(panel, "lox-k").value == 4
    state.setting.classroom = True
    assert panel.size == 18
    find(panel, "lox-reset").click()
    assert (attack.value, training.value, steps.value, at.value) == ("arithmetic", "full", 80, 80)
