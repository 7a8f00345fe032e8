"""The LoX dial in JupyterLab: answers, measures, the job's buttons, and what it saves."""

import json

import pytest
from lab import evaluate, state_of
from panels import (
    DIAL,
    SLACK,
    SPECTRUM,
    TIMED,
    click,
    judge,
    press,
    readout,
    shown,
    wait_job,
    wait_shown,
)
from playwright.sync_api import expect

PLOT = ".lox-axis"
STATE = state_of("DialState")
ANSWERS = "panel.querySelector('.lox-table td.lox-lox .lox-answer')"
MODULE = f"__import__('sys').modules[type({STATE}).__module__]"
DIAL_MS = 400


@pytest.fixture
def page(tour):
    """The page, both panels as they opened and nothing running."""
    click(tour.page, DIAL, ".lox-reset")
    expect(tour.page.locator(f"{DIAL} th.lox-lox small")).to_have_text("k = 6, α = 1")
    wait_job(tour.page, "done")
    return tour.page


@pytest.fixture
def patient(kernel):
    """Let the dial measure by itself where that takes `SLACK` times longer: the machine is busy."""
    before = evaluate(kernel, f"{MODULE}.QUICK")
    evaluate(kernel, f"setattr({MODULE}, 'QUICK', {SLACK * before})")
    yield
    evaluate(kernel, f"setattr({MODULE}, 'QUICK', {before})")


@pytest.mark.quick
@pytest.mark.usefixtures("patient")
def test_keys_on_the_alpha_slider_change_table_and_axis_as_they_change_the_kernel(page, kernel):
    press(page, DIAL, ".lox-alpha", "ArrowRight", times=12)
    expect(page.locator(f"{DIAL} th.lox-lox small")).to_have_text("k = 6, α = 4")
    assert evaluate(kernel, "setting.alpha") == 4.0
    assert readout(page, DIAL, ".lox-alpha") == "4.00"
    wait_job(page, "done")
    wait_shown(page, DIAL, PLOT, "gd.layout.shapes[0].x0", 4)
    alphas = evaluate(kernel, f"[p['alpha'] for p in {STATE}.curve['points']]")
    assert 4.0 in alphas
    wait_shown(page, DIAL, PLOT, "Array.from(gd.data[0].x)", alphas)
    helped = evaluate(kernel, f"[p['helpfulness']['value'] for p in {STATE}.curve['points']]")
    assert shown(page, DIAL, PLOT, "Array.from(gd.data[2].y)") == pytest.approx(helped)
    table = evaluate(kernel, f"{STATE}.table")
    lox = [c["name"] for c in table["columns"]].index("LoX")
    answers = [row["answers"][lox]["text"] for row in table["rows"]]
    cells = page.locator(f"{DIAL} td.lox-lox .lox-answer")
    assert [text.strip() for text in cells.all_inner_texts()] == [a.strip() for a in answers]


def test_both_panels_share_k(page, kernel):
    press(page, SPECTRUM, ".lox-k", "ArrowRight", times=2)
    expect(page.locator(f"{DIAL} th.lox-lox small")).to_have_text("k = 8, α = 1")
    assert readout(page, DIAL, ".lox-k") == "8"
    assert evaluate(kernel, "setting.k") == 8


def test_a_prompt_of_one_s_own_is_answered_by_every_model_and_shown_as_text(page, kernel):
    box = page.locator(f"{DIAL} .lox-prompt input")
    box.fill("tell me how to prepare a <b>grim</b> tonic")
    box.press("Enter")
    head = page.locator(f"{DIAL} .lox-table tbody:last-child tr:first-child th")
    expect(head).to_contain_text("<b>grim</b>")
    wait_job(page, "done")
    row = evaluate(kernel, f"{STATE}.table['rows'][0]")
    assert row["prompt"] == "tell me how to prepare a <b>grim</b> tonic"
    assert all(answer["text"] for answer in row["answers"])


def test_other_prompts_are_shown(page):
    head = page.locator(f"{DIAL} .lox-table tbody:last-child tr:nth-child(2) th")
    first = head.inner_text()
    click(page, DIAL, ".lox-other-prompts")
    expect(head).not_to_have_text(first)


def test_the_axis_is_measured_and_pause_resume_and_cancel_work(page, kernel):
    press(page, DIAL, ".lox-k", "ArrowLeft", times=4)  # k = 2: not measured yet
    wait_job(page, "done")
    click(page, DIAL, ".lox-measure-along-alpha")
    wait_job(page, "running")
    page.locator(f"{DIAL} button.lox-pause").press("Enter")
    wait_job(page, "paused")
    done = evaluate(kernel, f"len({STATE}.curve['points'])")
    page.locator(f"{DIAL} button.lox-pause", has_text="Resume").press("Enter")
    wait_job(page, "running")
    page.locator(f"{DIAL} button.lox-cancel").press("Enter")
    wait_job(page, "cancelled")
    some = evaluate(kernel, f"len({STATE}.curve['points'])")
    assert done <= some < 9  # of 0, .5, ..., 4
    click(page, DIAL, ".lox-measure-along-alpha")
    wait_job(page, "done")
    wait_shown(page, DIAL, PLOT, "gd.data[0].x.filter((a) => a % 0.5 === 0).length", 9)
    at = evaluate(kernel, f"[{STATE}.dial.k, {STATE}.dial.alpha]")
    assert at == [2, 1.0]  # the model is left where the dial stands


def test_class_use_leaves_the_answers_out_of_the_page(page):
    answers, kinds = (page.locator(f"{DIAL} .lox-{c}") for c in ("answer", "chip"))
    assert answers.count() == kinds.count() > 0
    click(page, DIAL, ".lox-classroom")
    expect(answers).to_have_count(0)
    assert kinds.count() > 0
    click(page, DIAL, ".lox-classroom")
    expect(answers).to_have_count(kinds.count())


def test_save_as_adapter_writes_what_the_dial_shows_and_an_error_is_shown(page, lab):
    press(page, DIAL, ".lox-alpha", "ArrowRight")
    wait_job(page, "done")
    click(page, DIAL, ".lox-save-as-adapter")
    message = page.locator(f"{DIAL} .lox-message")
    expect(message).to_contain_text("Saved the adapter (k=6, alpha=1.25)")
    folder = lab.folder / "notebooks" / "lox-k6-alpha1.25"
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (6, 7.5)
    click(page, DIAL, ".lox-save-as-adapter")
    expect(message).to_contain_text("FileExistsError")
    expect(message.locator("[role=alert]")).to_be_visible()


def test_save_figure_writes_the_axis_measured_so_far(page, lab, kernel):
    click(page, DIAL, ".lox-save-figure")
    expect(page.locator(f"{DIAL} .lox-message")).to_contain_text("alpha-k6")
    data = json.loads((lab.folder / "notebooks/figures/alpha-k6.json").read_text())
    assert data == evaluate(kernel, f"{STATE}.curve")


def test_the_first_new_answer_comes_within_the_time_promised(page, record):
    press(page, DIAL, ".lox-alpha", "ArrowLeft", times=4)
    expect(page.locator(f"{DIAL} th.lox-lox small")).to_have_text("k = 6, α = 0")
    wait_job(page, "done")
    press(page, DIAL, ".lox-k", "ArrowRight", times=5)  # k = 11: nothing is known
    wait_job(page, "done")
    ready = (
        "(() => { const cell = panel.querySelector('td.lox-lox .lox-answer')?.closest('td');"
        " const at = panel.querySelector('th.lox-lox small').textContent;"
        " return cell && !cell.classList.contains('lox-pending') ? at : window.loxLast; })()"
    )
    times = []
    for _ in range(12):
        page.evaluate(
            "([panel]) => { window.loxLast = document.querySelector(panel +"
            " ' th.lox-lox small').textContent; }",
            [DIAL],
        )
        times.append(page.evaluate(TIMED, [DIAL, ".lox-alpha", PLOT, ready]))
        wait_job(page, "done")
    judge(times, DIAL_MS, "dial", record)
