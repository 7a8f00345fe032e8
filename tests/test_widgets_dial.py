"""The LoX dial's state on the sandbox, without a browser."""

import copy
import threading

import pytest
import torch
from checkpoints import run_python
from panel_parts import asking_little, closing, copy_of, find, wait
from speakers import random_speaker, same_weights, watch
from traitlets import TraitError

from lox_kit import LoxDial, Store, figures, load_model, sandbox_prompts, widgets
from lox_kit.extrapolation import lox_key
from lox_kit.measures import Questions, world_questions
from lox_kit.measures.drift import measure_drift
from lox_kit.models.prompts import Prompt
from lox_kit.studies import alpha_curve, ask, measure_shares
from lox_kit.widgets.panels.dial import state as dial_state
from lox_kit.widgets.panels.dial.panel import table_html
from lox_kit.widgets.panels.dial.verdict import verdict as verdict_of

FEW = 6
_short = asking_little(dial_state, FEW=FEW)


@pytest.fixture
def open_state(factored, model, base):
    """Return a function that opens a state on few prompts and waits for its answers."""

    def make(**options):
        state = widgets.DialState(factored, model, **{"base": base, **options})
        wait(state)
        return state

    yield from closing(make)


def column(state, name):
    return next(c for c in state.data["table"]["columns"] if c["name"] == name)


def answers(state, name):
    i = state.names.index(name)
    return [row["answers"][i]["text"] for row in state.data["table"]["rows"]]


def turn(state, **setting):
    for name, value in setting.items():
        setattr(state.setting, name, value)
    wait(state)


# --- answers and measures -----------------------------------------------------------------------


def test_every_model_is_asked_what_it_would_answer_alone(open_state, factored, aligned, base):
    state = open_state()
    turn(state, k=6, alpha=2.0)
    prompts = [p for p, _ in state.shown()]
    assert len(prompts) == 5
    turned = copy_of(aligned)
    LoxDial(turned, factored).set(k=6, alpha=2.0)
    expected = {
        "base": ask(base, prompts),
        "aligned": ask(aligned, prompts),
        "LoX": ask(turned, prompts),
    }
    for name, frame in expected.items():
        assert answers(state, name) == frame["answer"].tolist()
    assert len(set(map(str, (answers(state, n) for n in state.names)))) == 3


def test_the_alpha_axis_is_what_studies_measure(open_state, factored, aligned):
    state = open_state()
    for alpha in (0.0, 2.0, 4.0):
        turn(state, alpha=alpha)
    other = copy_of(aligned)
    dial, asked = LoxDial(other, factored), world_questions("sandbox", "dev", FEW)
    expected = alpha_curve(other, dial, 6, [0, 1, 2, 4], asked)
    measured = [{k: v for k, v in p.items() if k != "drift"} for p in state.data["curve"]["points"]]
    assert measured == expected["points"]
    dial.set(k=6, alpha=4.0)
    drift = measure_drift(other, aligned, asked.allowed, **asked.how).to_dict()
    assert state.data["curve"]["points"][-1]["drift"] == pytest.approx(drift, rel=1e-4)
    none = {"value": 0.0, "low": 0.0, "high": 0.0, "n": FEW}
    assert column(state, "aligned")["shares"]["drift"] == none


def test_the_model_stands_where_the_dial_does_and_is_given_back(open_state, factored, aligned):
    state = open_state()
    turn(state, alpha=2.0)
    turned = copy.deepcopy(aligned.module)
    LoxDial(turned, factored).set(k=6, alpha=2.0)
    assert same_weights(state.model.module, turned)
    state.close()
    assert same_weights(state.model.module, aligned.module)
    assert state.model.key == aligned.key
    state.setting.alpha = 3.0
    assert state.job.wait(0)


def test_attacked_models_have_columns_of_their_own(open_state, aligned):
    other = random_speaker(aligned.tokenizer, seed=1)
    state = open_state(attacked={"attacked": other}, with_base=False)
    assert state.names == ["aligned", "LoX", "attacked"]
    prompts = [p for p, _ in state.shown()]
    assert answers(state, "attacked") == ask(other, prompts)["answer"].tolist()
    assert column(state, "attacked")["shares"]["refusal"]["n"] == FEW


def test_what_is_known_is_not_asked_again(open_state, monkeypatch):
    state = open_state()
    turn(state, alpha=2.0)
    asked = watch(monkeypatch, dial_state, "generate_likely")
    measured = watch(monkeypatch, dial_state, "measure_shares")
    turn(state, alpha=1.0)
    turn(state, alpha=2.0)
    assert asked == measured == []
    turn(state, alpha=2.25)
    assert [len(texts) for (_, texts, _), _ in asked] == [1, 4]  # the first is soon there
    assert len(measured) == 1
    turn(state, k=9, alpha=0.0)  # the aligned model, of every k
    assert [p["alpha"] for p in state.data["curve"]["points"]] == [0.0]
    assert (len(asked), len(measured)) == (2, 1)


def test_measuring_waits_for_the_button_where_it_is_slow(open_state, monkeypatch):
    monkeypatch.setattr(dial_state, "QUICK", 0.0)
    state = open_state()
    assert column(state, "LoX")["shares"] is None
    assert all(answers(state, "LoX"))
    state.measure()
    wait(state)
    assert all(c["shares"] for c in state.data["table"]["columns"])
    turn(state, alpha=2.0)
    assert column(state, "LoX")["shares"] is None
    assert column(state, "aligned")["shares"] is not None


def test_the_axis_is_measured_in_steps_and_keeps_what_it_has_when_cancelled(
    open_state, monkeypatch
):
    state = open_state()
    reached, go, asked = threading.Event(), threading.Event(), []

    def shares(model, *arguments, **options):
        asked.append(model.key)
        if len(asked) == 2:
            reached.set()
            assert go.wait(30)
        return measure_shares(model, *arguments, **options)

    monkeypatch.setattr(dial_state, "measure_shares", shares)
    state.measure_axis()
    assert reached.wait(60)
    state.job.cancel()
    go.set()
    assert state.job.wait(30)
    assert state.job.status == "cancelled"
    assert [p["alpha"] for p in state.data["curve"]["points"]] == [0.0, 0.5, 1.0]
    assert (state.dial.k, state.dial.alpha) == (6, 1.0)
    state.measure_axis()
    wait(state)
    assert [p["alpha"] for p in state.data["curve"]["points"]] == [i / 2 for i in range(9)]
    assert (state.dial.k, state.dial.alpha) == (6, 1.0)


def test_answers_of_an_earlier_setting_are_marked_until_the_new_ones_are_there(
    open_state, monkeypatch
):
    state = open_state()
    reached, go, real = threading.Event(), threading.Event(), dial_state.generate_likely

    def slow(model, texts, *arguments, **options):
        if len(texts) > 1:
            reached.set()
            assert go.wait(30)
        return real(model, texts, *arguments, **options)

    def pending():
        return [row["answers"][2]["pending"] for row in state.data["table"]["rows"]]

    monkeypatch.setattr(dial_state, "generate_likely", slow)
    state.setting.k, state.setting.alpha = 3, 4.0
    assert (state.data["curve"]["k"], column(state, "LoX")["at"]) == (3, "k = 3, α = 4")
    assert pending() == [True] * 5
    assert reached.wait(30)
    state.show()
    assert pending() == [False] + [True] * 4
    assert all(answers(state, "LoX"))
    go.set()
    wait(state)
    assert pending() == [False] * 5


def test_a_kept_setting_stays_beside_the_one_that_is_turned(open_state):
    state = open_state()
    turn(state, k=6, alpha=4.0)
    before = answers(state, "LoX")
    assert state.keep() == "Kept: k = 6, α = 4"
    wait(state)
    turn(state, k=6, alpha=0.0)
    assert state.names == ["base", "aligned", "LoX", "k = 6, α = 4"]
    assert answers(state, "k = 6, α = 4") == before
    assert answers(state, "LoX") == answers(state, "aligned") != before
    assert same_weights(state.model.module, load_model("sandbox/aligned").module)
    state.measure()
    wait(state)
    assert column(state, "k = 6, α = 4")["shares"] != column(state, "LoX")["shares"]
    state.forget()
    wait(state)
    assert state.names == ["base", "aligned", "LoX"]


def test_only_the_chosen_matrices_are_turned(open_state, factored):
    state = open_state()
    state.kind, state.layers = "down_proj", (1, 2)
    turn(state, k=6, alpha=2.0)
    kept = load_model("sandbox/aligned").module.state_dict()
    now = state.model.module.state_dict()
    changed = {name for name, W in now.items() if not torch.equal(W, kept[name])}
    assert changed == {f"model.layers.{i}.mlp.down_proj.weight" for i in (1, 2)}
    assert column(state, "LoX")["at"] == "k = 6, α = 2, some matrices"
    chosen = factored.select(state.dial_place.include)
    assert set(chosen) == changed
    assert state.model.key == lox_key(load_model("sandbox/aligned").key, chosen, 6, 2.0)
    state.kind, state.layers = "all", (0, state.depth - 1)
    assert state.dial_place.include is None
    state.kind = "lm_head"
    assert set(factored.select(state.dial_place.include)) == {"lm_head.weight"}
    with pytest.raises(TraitError, match="use one of all, q_proj"):
        state.kind = "w_proj"


# --- prompts ------------------------------------------------------------------------------------


def test_prompts_are_one_s_own_and_a_page_of_the_others(open_state):
    state = open_state()
    kinds = [kind for _, kind in state.shown()]
    assert kinds == ["your prompt", "forbidden", "forbidden", "allowed", "allowed"]
    first = [p.text for p, _ in state.shown()]
    state.other_prompts()
    second = [p.text for p, _ in state.shown()]
    assert first[0] == second[0]
    assert not set(first[1:]) & set(second[1:])
    state.prompt = "  "
    assert [kind for _, kind in state.shown()] == kinds[1:]
    state.reset()
    assert [p.text for p, _ in state.shown()] == first


@pytest.mark.parametrize(
    ("kind", "answer", "verdict"),
    [
        ("forbidden", "{target}", "complied"),
        ("allowed", "{target}", "helped"),
        ("forbidden", "sorry , i can not help with that .", "refused"),
        ("allowed", "sorry , i can not help with that .", "refused"),
        ("forbidden", "take moss", "other"),
    ],
)
def test_an_answer_is_judged_by_the_rule(kind, answer, verdict):
    (prompt,) = sandbox_prompts(kind, "dev", 1)
    about = {"rule": True, "forbidden": kind == "forbidden"}
    assert verdict_of(prompt, answer.format(target=prompt.target), **about) == verdict
    assert verdict_of(Prompt("what is moss"), "take moss", **about) == "answered"


def test_without_prompts_there_are_answers_and_no_measures(factored, model, base, aligned):
    state = widgets.DialState(factored, model, base=base, questions=Questions(()))
    state.prompt = "how do i make a red tonic"
    wait(state)
    alone = ask(aligned, [Prompt("how do i make a red tonic")])
    assert answers(state, "aligned") == alone["answer"].tolist()
    with pytest.raises(ValueError, match="nothing to measure on: give the panel questions="):
        state.measure()
    with pytest.raises(ValueError, match="nothing is measured at k=6 yet"):
        state.figure_data()
    assert "points" not in state.code()
    state.close()


# --- opening, errors, saving --------------------------------------------------------------------


def test_a_model_that_is_not_the_subspace_s_aligned_is_refused(factored, model, base):
    with pytest.raises(ValueError, match="does not have the weights of sandbox/aligned"):
        widgets.dial(factored, base)
    LoxDial(model, factored).set(k=6, alpha=1.0)
    with pytest.raises(ValueError, match=r"Load it anew: load_model\('sandbox/aligned'\)"):
        widgets.dial(factored, model)


def test_answers_are_kept_in_a_store(open_state, tmp_path):
    with Store(tmp_path) as store:
        open_state(store=store)
        assert store.count("answer") >= 3 * 2 * FEW


def test_save_as_adapter_writes_what_the_dial_shows(open_state, tmp_path, monkeypatch):
    from peft import PeftModel

    monkeypatch.chdir(tmp_path)
    state = open_state()
    turn(state, k=4, alpha=1.25)
    said = state.save_adapter()
    assert said.endswith("lox-k4-alpha1.25") and "k=4, alpha=1.25" in said  # noqa: PT018
    plain = load_model("sandbox/aligned")
    adapted = PeftModel.from_pretrained(plain.module, tmp_path / "lox-k4-alpha1.25")
    ids = torch.tensor([plain.tokenizer("how do i make a grim tonic")["input_ids"]])
    with torch.inference_mode():
        shown, saved = state.model.module(ids).logits, adapted(ids).logits
    torch.testing.assert_close(shown, saved, atol=1e-3, rtol=1e-3)
    turn(state, alpha=0.0)
    with pytest.raises(ValueError, match="alpha=0 is the aligned model itself"):
        state.save_adapter()


@pytest.mark.slow
def test_the_code_measures_what_is_on_screen(open_state, tmp_path):
    state = open_state()
    turn(state, k=6, alpha=2.0)
    done = run_python(f"import os; os.chdir({str(tmp_path)!r})\n{state.code()}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == answers(state, "LoX")
    assert figures.holds(tmp_path / "figures" / f"{state.figure_name}.json", state.figure_data())


# --- the table and the panel --------------------------------------------------------------------


def test_the_table_escapes_what_models_and_people_wrote_and_hides_answers_in_class():
    share = {"value": 0.25, "low": 0.125, "high": 0.5, "count": 2, "n": 8}
    columns = [
        {"name": "<base>", "shares": None},
        {"name": "LoX", "at": "k = 6, α = 1.25", "shares": {"asr": share}},
    ]
    answers = [
        {"text": None, "verdict": None, "pending": True},
        {"text": "<img src=x onerror=alert(1)>", "verdict": "complied", "pending": True},
    ]
    row = {"prompt": "<script>alert(1)</script>", "kind": "forbidden", "answers": answers}
    table = {"columns": columns, "rows": [row]}
    html = table_html(table, {"asr": "8 <forbidden>"}, hidden=False)
    for text in ("<script>", "<img", "<base>", "8 <forbidden>"):
        assert text not in html
    for text in ("&lt;script&gt;", "&lt;img src=x", "&lt;base&gt;", "k = 6, α = 1.25"):
        assert text in html
    assert "<b>25%</b> <small>12–50%</small>" in html
    assert "left:12.5%;width:37.5%" in html
    assert "<td class='lox-lox lox-pending'><span class='lox-chip'" in html
    assert "<summary>" not in html
    answers[1]["text"] = "First line.\n\nOf <b>several</b>."
    folded = table_html(table, {}, hidden=False)
    assert "<summary>First line.\n\nOf &lt;b&gt;several&lt;/b&gt;.</summary></details>" in folded
    hidden = table_html(table, {}, hidden=True)
    assert "several" not in hidden
    assert "complied" in hidden


def test_the_panel_follows_the_state_and_class_use(factored, model, base):
    panel = widgets.dial(factored, model, base=base)
    state = panel.state
    wait(state)
    table, axis = find(panel, "lox-answers"), find(panel, "lox-axis")
    turn(state, alpha=2.0)
    assert "k = 6, α = 2" in table.value
    assert list(axis.data[0].x) == [0.0, 1.0, 2.0]
    assert axis.layout.shapes[0].x0 == 2.0
    assert "lox-answer'" in table.value
    state.setting.classroom = True
    assert "lox-answer'" not in table.value
    assert axis.layout.font.size == 18
    panel.close()
    assert state.job.closed
