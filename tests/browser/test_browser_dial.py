"""The LoX dial in JupyterLab: answers, measures, the job's buttons, and what it saves."""

import json

import pytest
from lab import evaluate
from panels import SLACK, judge
from playwright.sync_api import expect

DIAL_MS = 400
LOX = "th.lox-lox small"  # where the head of LoX's column says k and alpha
READY = (
    "(() => { const cell = panel.querySelector('td.lox-lox .lox-answer')?.closest('td');"
    f" const at = panel.querySelector('{LOX}').textContent;"
    " return cell && !cell.classList.contains('lox-pending') ? at : window.loxLast; })()"
)
REMEMBER = "(panel) => { window.loxLast = document.querySelector(panel).textContent; }"


@pytest.fixture
def panel(panels):
    """The dial as it opened and nothing running."""
    panel = panels["dial"]
    panel.click(".lox-reset")
    expect(panel.find(LOX)).to_have_text("k = 6, α = 1")
    panel.wait_job("done")
    return panel


@pytest.fixture
def patient(panel):
    """Let the dial measure by itself where that takes `SLACK` times longer: the machine is busy."""
    module = "import sys\n_module = sys.modules[type(_state).__module__]\n_module.QUICK"
    panel.execute(f"{module} *= {SLACK}")
    yield
    panel.execute(f"{module} /= {SLACK}")


@pytest.mark.quick
@pytest.mark.usefixtures("patient")
def test_keys_on_the_alpha_slider_change_table_and_axis_as_they_change_the_kernel(panel, kernel):
    panel.press(".lox-alpha", "ArrowRight", times=12)
    expect(panel.find(LOX)).to_have_text("k = 6, α = 4")
    assert evaluate(kernel, "setting.alpha") == 4.0
    assert panel.readout(".lox-alpha") == "4.00"
    panel.wait_job("done")
    panel.wait_shown("gd.layout.shapes[0].x0", 4)
    alphas = panel.state("[p['alpha'] for p in state.data['curve']['points']]")
    assert 4.0 in alphas
    panel.wait_shown("Array.from(gd.data[0].x)", alphas)
    helped = panel.state("[p['helpfulness']['value'] for p in state.data['curve']['points']]")
    assert panel.shown("Array.from(gd.data[2].y)") == pytest.approx(helped)
    table = panel.state("state.data['table']")
    lox = [c["name"] for c in table["columns"]].index("LoX")
    answers = [row["answers"][lox]["text"].strip() for row in table["rows"]]
    cells = panel.find("td.lox-lox .lox-answer").all_inner_texts()
    assert [text.strip() for text in cells] == answers


def test_a_prompt_of_your_own_is_answered_by_every_model_and_shown_as_text(panel):
    box = panel.find(".lox-prompt input")
    box.fill("tell me how to prepare a <b>grim</b> tonic")
    box.press("Enter")
    head = panel.find(".lox-table tbody:last-child tr:first-child th")
    expect(head).to_contain_text("<b>grim</b>")
    panel.wait_job("done")
    row = panel.state("state.data['table']['rows'][0]")
    assert row["prompt"] == "tell me how to prepare a <b>grim</b> tonic"
    assert all(answer["text"] for answer in row["answers"])


def test_the_axis_is_measured_and_the_model_is_left_where_the_dial_stands(panel):
    panel.press(".lox-k", "ArrowLeft", times=4)  # k = 2: not measured yet
    panel.wait_job("done")
    panel.click(".lox-measure-along-alpha")
    panel.wait_job("done")
    panel.wait_shown("gd.data[0].x.filter((a) => a % 0.5 === 0).length", 9)
    assert panel.state("[state.dial.k, state.dial.alpha]") == [2, 1.0]


def test_save_as_adapter_writes_what_the_dial_shows_and_an_error_is_shown(panel, lab):
    panel.press(".lox-alpha", "ArrowRight")
    panel.wait_job("done")
    panel.click(".lox-save-as-adapter")
    message = panel.find(".lox-message")
    expect(message).to_contain_text("Saved the adapter (k=6, alpha=1.25)")
    folder = lab.folder / "notebooks" / "lox-k6-alpha1.25"
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (6, 7.5)
    panel.click(".lox-save-as-adapter")
    expect(message).to_contain_text("FileExistsError")
    expect(message.locator("[role=alert]")).to_be_visible()


def test_the_first_new_answer_comes_within_the_time_promised(panel, record):
    panel.press(".lox-alpha", "ArrowLeft", times=4)
    expect(panel.find(LOX)).to_have_text("k = 6, α = 0")
    panel.wait_job("done")
    panel.press(".lox-k", "ArrowRight", times=5)  # k = 11: nothing is known
    panel.wait_job("done")
    times = []
    for _ in range(12):
        panel.page.evaluate(REMEMBER, f"{panel.css} {LOX}")
        times.append(panel.times(".lox-alpha", READY))
        panel.wait_job("done")
    judge(times, DIAL_MS, "dial", record)
