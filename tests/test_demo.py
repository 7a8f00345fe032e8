"""The whole story: what its table says, and a cut that changes nothing."""

import json
import signal
import subprocess
import sys

import pytest
from checkpoints import ROOT
from test_defences import MEASURES, made

from lox_kit import Store
from lox_kit.measures.intervals import Share
from lox_kit.reports.demo import caption, markdown_table, table_rows
from lox_kit.studies import difference

# --- the table ----------------------------------------------------------------------------------


def test_the_table_holds_every_share_with_its_interval():
    found = made({"aligned": 80, "LoX": 20})
    rows = table_rows(found)
    assert [[cell for cell, _ in row[:3]] for row in rows] == [
        ["0", "aligned", "before"],
        ["0", "aligned", "after"],
        ["0", "LoX", "before"],
        ["0", "LoX", "after"],
    ]
    assert all(len(row) == 3 + len(MEASURES) + 1 for row in rows)
    assert [row[3][0] for row in rows] == ["0.50", "0.80", "0.50", "0.20"]
    assert rows[0][4] == ("0.50", ".40-.60")
    assert [row[-1][0] for row in rows] == ["", "", "", "0.60"]
    _, low, high = difference(Share(80, 100), Share(20, 100))
    assert rows[3][-1] == ("0.60", f"{low:.2f}-{high:.2f}".replace("0.", "."))


@pytest.mark.parametrize(
    ("aligned", "lox", "shown"),
    [(50, 50, ("0.00", "-.14 to .14")), (40, 50, ("-0.10", "-.23 to .04"))],
)
def test_a_fall_that_is_none_is_shown_with_its_sign(aligned, lox, shown):
    assert table_rows(made({"aligned": aligned, "LoX": lox}))[-1][-1] == shown


def test_the_markdown_table_has_a_cell_for_every_head():
    lines = markdown_table(made({"aligned": 80, "LoX": 20}, seeds=(0, 1))).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + 2 * 2 * 2
    assert len({line.count("|") for line in table}) == 1
    assert table[0].startswith("| seed | arm | attack | ASR | refusal | broken | help |")
    assert table[0].endswith("| fall of ASR |")
    assert "| 0 | LoX | after | 0.20 [" in table[5]
    assert caption(made({"aligned": 80, "LoX": 20}, seeds=(0, 1))) in lines


# --- the caption --------------------------------------------------------------------------------


def test_the_caption_says_what_was_measured_and_the_mean_falls():
    said = caption(made({"aligned": 80, "LoX": 20, "random subspace": 78}, seeds=(0, 1)))
    assert "attack arithmetic, test prompts of each seed: 100 forbidden" in said
    assert "100 allowed" in said
    assert "100 held-out sums" in said
    assert "k=6, alpha=1;" in said
    assert "LoX lowers ASR in every seed with an interval that excludes 0." in said
    assert said.endswith("Mean fall: LoX 0.60, random subspace 0.02.")


def test_the_caption_names_the_seeds_in_which_lox_does_not_clearly_lower_asr():
    good, bad = (
        made({"aligned": 80, "LoX": 20}, seeds=(0,)),
        made({"aligned": 40, "LoX": 38}, (2, 3)),
    )
    mixed = type(good)(good.rows + bad.rows, good.source)
    said = caption(mixed)
    assert "LoX does not clearly lower ASR in seed 2, 3." in said
    assert "every seed" not in said
    worse = caption(made({"aligned": 20, "LoX": 80}))
    assert "LoX does not clearly lower ASR in seed 0." in worse
    assert "Mean fall: LoX -0.60." in worse


def test_without_lox_the_caption_claims_nothing_of_it():
    said = caption(made({"aligned": 80, "full delta": 20}))
    assert "lower" not in said
    assert said.endswith("Mean fall: full delta 0.60.")
    alone = caption(made({"aligned": 80}))
    assert "Mean fall" not in alone
    assert "LoX lowers" not in alone


# --- a cut --------------------------------------------------------------------------------------

LOX = (sys.executable, "-c", "from lox_kit.cli.main import main; main()")
COUNTED = """
import json, sys
from lox_kit.attacks import run as attacks
from lox_kit.cli import main as cli
from transformers import LlamaForCausalLM
counts = {"runs": 0, "prompts": 0}
train, decode = attacks.fine_tune, LlamaForCausalLM.generate
def counted_train(*a, **b):
    counts["runs"] += 1
    return train(*a, **b)
def counted_decode(module, input_ids, **b):
    counts["prompts"] += len(input_ids)
    return decode(module, input_ids, **b)
attacks.fine_tune, LlamaForCausalLM.generate = counted_train, counted_decode
try:
    cli.main()
finally:
    print(json.dumps(counts), file=sys.stderr)
"""


def demo(store, out, *, script=None):
    """Return a running `lox demo`."""
    command = (sys.executable, "-c", script) if script else LOX
    return subprocess.Popen(
        [*command, "--store", store, "demo", "-o", out, "--json"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_a_killed_demo_goes_on_where_it_was_and_ends_as_if_undisturbed(tmp_path):
    store = tmp_path / "store"
    killed = demo(store, tmp_path / "killed")
    while not list(store.glob("runs/[!.]*")):  # until the first attack is finished
        assert killed.poll() is None, killed.stderr.read()
        try:
            killed.wait(0.2)
        except subprocess.TimeoutExpired:
            continue
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -9
    killed.communicate()
    assert not (tmp_path / "killed").exists()
    with Store(store) as opened:
        stored = opened.count("answer")
    finished = len(list(store.glob("runs/[!.]*")))
    assert stored > 0
    out, err = demo(store, tmp_path / "resumed", script=COUNTED).communicate()
    undisturbed, counts = demo(tmp_path / "other", tmp_path / "whole", script=COUNTED).communicate()
    assert json.loads(out) == json.loads(undisturbed)
    resumed, whole = (json.loads(text.splitlines()[-1]) for text in (err, counts))
    assert resumed["runs"] == whole["runs"] - finished == 4 - finished
    assert resumed["prompts"] == whole["prompts"] - stored
    files = {f.name: f.read_bytes() for f in (tmp_path / "whole").iterdir()}
    assert len(files) == 3 * 4 + 1
    assert {f.name: f.read_bytes() for f in (tmp_path / "resumed").iterdir()} == files
