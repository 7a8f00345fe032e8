"""The attack lab in JupyterLab: it trains, pauses, goes on, and shows what the kernel has."""

import json
import re
import time

import pytest
from lab import evaluate, state_of
from panels import LAB, click, press, readout, shown, wait_job, wait_shown
from playwright.sync_api import expect

PLOT = ".lox-lab"
STATE = state_of("AttackLabState")
LOSSES = "[0, 5].map((i) => gd.data[i].y.length)"  # of aligned and LoX
FEW = 6  # steps of a run
LONG = 60
AT = "gd.layout.shapes.map((s) => s.x0)"


@pytest.fixture
def page(tour, kernel):
    """The page, the lab with nothing running."""
    page = tour.page
    end = time.monotonic() + 60
    while not evaluate(kernel, f"{STATE}.job.wait(0)"):
        assert time.monotonic() < end
        time.sleep(0.1)
    click(page, LAB, ".lox-reset")
    wait_shown(page, LAB, PLOT, AT, [80, 80, 80])
    return page


def choose(page, kernel, steps, seed):
    """Choose a short run by its own steps and seed."""
    reply = kernel.execute_interactive(
        f"_lab = {STATE}; _lab.seed, _lab.steps = {seed}, {steps}", timeout=60
    )
    assert reply["content"]["status"] == "ok"
    wait_shown(page, LAB, PLOT, AT, [steps] * 3)


def run_short(page, kernel, seed=100):
    """Show a run of few steps, trained if it is not in the store."""
    choose(page, kernel, FEW, seed)
    click(page, LAB, ".lox-run")
    wait_shown(page, LAB, PLOT, LOSSES, [FEW, FEW])
    expect(page.locator(f"{LAB} .lox-runs option", has_text=f"seed {seed}")).to_be_attached(
        timeout=60_000
    )


def arm(kernel, name):
    return evaluate(kernel, f"{STATE}.data['runs'][0]['arms']['{name}']")


@pytest.mark.quick
def test_run_trains_both_models_and_draws_what_the_kernel_has(page, kernel):
    run_short(page, kernel)
    assert evaluate(kernel, f"{STATE}.ways({STATE}.choice)['LoX'].finished")
    for first, name in ((0, "aligned"), (5, "LoX")):
        way = arm(kernel, name)
        assert shown(page, LAB, PLOT, f"Array.from(gd.data[{first}].y)") == way["losses"]
        for place, measure in ((2, "asr"), (4, "helpfulness")):
            drawn = shown(page, LAB, PLOT, f"Array.from(gd.data[{first + place}].y)")
            assert drawn == [p["measures"][measure]["value"] for p in way["points"]]
            steps = shown(page, LAB, PLOT, f"Array.from(gd.data[{first + place}].x)")
            assert steps == [p["step"] for p in way["points"]]
    title = page.locator(f"{LAB} .annotation-text").first
    expect(title).to_have_text(
        "arithmetic · learning rate 0.0004 · 6 steps · full · seed 100 · k = 6, α = 1"
    )
    click(page, LAB, ".lox-run")
    expect(page.locator(f"{LAB} .lox-message")).to_contain_text("Nothing is left to train")


def test_keys_on_the_slider_move_the_line_and_the_numbers(page, kernel):
    run_short(page, kernel)
    press(page, LAB, ".lox-at", "ArrowLeft", times=2)
    wait_shown(page, LAB, PLOT, AT, [FEW - 2] * 3)
    assert evaluate(kernel, f"{STATE}.at") == FEW - 2
    assert readout(page, LAB, ".lox-at") == str(FEW - 2)
    cells = page.locator(f"{LAB} .lox-numbers tbody tr").nth(1).locator("td")
    way = arm(kernel, "LoX")
    expect(cells.nth(0)).to_contain_text(f"{way['losses'][FEW - 3]:.3f}")
    expect(cells.nth(0)).to_contain_text(f"at {FEW - 2}")
    point = [p for p in way["points"] if p["step"] <= FEW - 2][-1]
    share = point["measures"]["helpfulness"]
    expect(cells.nth(2)).to_contain_text(f"{share['count']}/{share['n']}")
    expect(cells.nth(2)).to_contain_text(f"at {point['step']}")


def test_pause_resume_cancel_and_run_again_goes_on(page, kernel):
    choose(page, kernel, LONG, seed=int(time.time()) % 10**6)
    click(page, LAB, ".lox-run")
    page.wait_for_function(
        "([panel, plot]) => document.querySelector(panel + ' ' + plot).data[0].y.length > 2",
        arg=[LAB, PLOT],
        timeout=60_000,
    )
    page.locator(f"{LAB} button.lox-pause").press("Enter")
    wait_job(page, "paused", LAB)
    page.wait_for_timeout(800)  # the step, or the point, that was being made
    first = evaluate(kernel, f"{STATE}._made")
    page.wait_for_timeout(800)
    assert evaluate(kernel, f"{STATE}._made") == first < LONG
    page.locator(f"{LAB} button.lox-pause", has_text="Resume").press("Enter")
    wait_job(page, "running", LAB)
    page.wait_for_function(
        "([panel, plot, n]) => document.querySelector(panel + ' ' + plot).data[0].y.length > n",
        arg=[LAB, PLOT, first],
        timeout=60_000,
    )
    page.locator(f"{LAB} button.lox-cancel").press("Enter")
    wait_job(page, "cancelled", LAB)
    cut = arm(kernel, "aligned")["losses"]
    assert first < len(cut) < LONG
    wait_shown(page, LAB, PLOT, LOSSES, [len(cut), 0])
    click(page, LAB, ".lox-run")
    wait_shown(page, LAB, PLOT, LOSSES, [LONG, LONG])
    wait_job(page, "done", LAB)
    assert arm(kernel, "aligned")["losses"][: len(cut)] == cut
    assert evaluate(kernel, f"{STATE}._made") == 2 * LONG - len(cut)


def test_a_run_in_the_list_is_laid_over_by_keyboard(page, kernel):
    run_short(page, kernel)
    run_short(page, kernel, seed=101)
    wait_job(page, "done", LAB)
    listed = page.locator(f"{LAB} .lox-runs select")
    titles = evaluate(kernel, f"[title for title, key in {STATE}.listed]")
    expect(listed.locator("option")).to_have_text(titles)
    listed.focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    wait_shown(page, LAB, PLOT, "gd.data.length", 16)
    assert evaluate(kernel, f"len({STATE}.data['runs'])") == 2
    assert shown(page, LAB, PLOT, "gd.data[10].line.dash") == "dot"
    expect(page.locator(f"{LAB} .lox-numbers tbody tr")).to_have_count(4)


def test_the_controls_choose_by_keyboard_and_bring_the_preset(page, kernel):
    attack = page.locator(f"{LAB} .lox-attack select")
    attack.focus()
    page.keyboard.press("ArrowDown")
    wait_shown(page, LAB, PLOT, AT, [40] * 3)
    assert evaluate(kernel, f"{STATE}.attack") == "context"
    attack.select_option("persona")
    wait_shown(page, LAB, PLOT, AT, [20] * 3)
    assert readout(page, LAB, ".lox-steps") == "20"
    page.locator(f"{LAB} .lox-training button", has_text="LoRA").press("Enter")
    wait_shown(page, LAB, PLOT, AT, [30] * 3)
    press(page, LAB, ".lox-rate", "ArrowRight")
    expect(page.locator(f"{LAB} .annotation-text").first).to_contain_text("learning rate 0.0025")
    assert evaluate(kernel, f"{STATE}.learning_rate") == 0.0025
    press(page, LAB, ".lox-steps", "ArrowLeft", times=2)
    wait_shown(page, LAB, PLOT, AT, [28] * 3)
    press(page, LAB, ".lox-k", "ArrowRight")
    expect(page.locator(f"{LAB} .annotation-text").first).to_contain_text("k = 7")
    assert evaluate(kernel, "setting.k") == 7


def test_code_and_save_figure(page, kernel, lab):
    run_short(page, kernel)
    click(page, LAB, ".lox-code")
    code = page.locator(f"{LAB} .lox-code textarea")
    expect(code).to_have_value(re.compile(r"find_attack\('arithmetic', max_steps=6, seed=100\)"))
    click(page, LAB, ".lox-code")
    expect(code).to_be_hidden()
    click(page, LAB, ".lox-save-figure")
    expect(page.locator(f"{LAB} .lox-message")).to_contain_text("attack-lab-arithmetic-full")
    file = lab.folder / "notebooks/figures/attack-lab-arithmetic-full-k6-alpha1.json"
    assert json.loads(file.read_text())["runs"] == evaluate(kernel, f"{STATE}.data['runs']")
