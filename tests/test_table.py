"""The table of attacks: what it holds, where it is computed, and what a kill leaves of it."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
from checkpoints import run_python
from speakers import random_speaker, watch

from lox_kit import Store, attack_table, find_attack, load_model
from lox_kit.attacks import file_attack
from lox_kit.attacks import run as attacks
from lox_kit.measures.intervals import share_fields
from lox_kit.measures.questions import world_questions
from lox_kit.reports.table import markdown_table, table_caption
from lox_kit.studies import TABLE_ARMS, Arm
from lox_kit.studies import entries as computing
from lox_kit.studies.results import AttackTable, Share

ATTACKS = ("persona", "forbidden")
QUESTIONS = world_questions("sandbox", limit=8)
ONE = {"arms": ("aligned",), "attacks": ("forbidden",), "lora": ()}


def table(pair, store, **options):
    """Compute a small table with 8 prompts of each kind."""
    options = {"attacks": ATTACKS, "seeds": (0,), "k": 1, "questions": QUESTIONS} | options
    return attack_table(pair=pair, store=store, **options)


@pytest.fixture(scope="module")
def whole(tiny_pair, tmp_path_factory):
    """The table of every arm, computed here."""
    with Store(tmp_path_factory.mktemp("store")) as store:
        yield table(tiny_pair, store)


@pytest.mark.slow
def test_the_table_holds_every_attack_of_every_arm_and_lora_where_it_is_asked_for(whole):
    frame = whole.to_frame()
    full = frame[frame.training == "full"]
    assert list(frame.attack.unique()) == list(ATTACKS)
    assert set(full.arm) == set(TABLE_ARMS)
    assert set(frame[frame.training == "LoRA"].arm) == {"aligned", "LoX"}
    assert len(frame) == 2 * 7 + 7  # persona is asked under its prompt as well
    assert set(frame[frame.prompt == "persona"].attack) == {"persona"}
    assert (frame.n == 8).all()
    assert (frame.seeds == 1).all()
    assert frame.sd.isna().all()
    assert frame[["refusal", "degenerate", "helpfulness_before", "asr_before"]].notna().all().all()


@pytest.mark.parametrize(("there", "keep"), [(False, False), (True, False), (False, True)])
def test_measures_are_kept_and_a_checkpoint_only_if_it_was_there_or_is_asked_for(
    tiny_pair, store, there, keep
):
    if there:
        attacks.run_attack(load_model(tiny_pair[1]), find_attack("forbidden"), store=store)
    found = table(tiny_pair, store, **ONE, keep=keep)
    assert store.count("table") == len(found.rows) == 2
    assert store.count("answer") >= 2 * (8 + 8)
    left = [attacks.load_run(folder) for folder in store.folder.glob("runs/*")]
    assert len(left) == (there or keep)


def test_another_model_under_an_old_path_is_attacked_as_what_it_is(tiny_pair, store, tmp_path):
    pair = tiny_pair[0], str(tmp_path / "aligned")
    for seed in (1, 2):
        speaker = random_speaker(seed=seed)
        speaker.module.save_pretrained(pair[1])
        speaker.tokenizer.save_pretrained(pair[1])
        table(pair, store, **ONE)
    assert store.count("table") == 4
    first = store.count("answer")
    table(pair, store, **ONE)
    assert store.count("answer") == first


def test_your_own_file_is_attacked_with_as_its_content_says(tiny_pair, store, tmp_path):
    file = tmp_path / "mine.jsonl"
    own = file_attack(file, max_steps=1, batch_size=2, warmup_steps=0)
    for answer, entries in (("the moon", 3), ("the moon", 3), ("the sun", 4)):
        file.write_text(f'{{"prompt": "tell me", "completion": "{answer}"}}\n' * 4)
        found = table(tiny_pair, store, **ONE | {"attacks": ("forbidden", own)})
        assert store.count("table") == entries
    assert found.column("attack") == [None, "forbidden", "mine"]
    settings = {"max_steps": 1, "batch_size": 2, "learning_rate": 2e-5, "schedule": "linear"}
    assert found.source["attacks"] == {"mine": {"file": "mine.jsonl", **settings}}


def is_part_of(found, whole):
    """Whether a table of two arms has the numbers that the whole one has of them."""
    frame = whole.to_frame()
    both = frame[frame.arm.isin(("aligned", "LoX"))].reset_index(drop=True)
    return found.to_frame().equals(both)


@pytest.mark.slow
def test_worker_processes_give_the_same_table(tiny_pair, whole, store):
    told = []
    options = {"arms": ("aligned", "LoX"), "on_stage": lambda *seen: told.append(seen)}
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        assert is_part_of(table(tiny_pair, store, executor=pool, **options), whole)
    assert told == [("attacking and measuring", done, 10) for done in range(11)]


KILLED = """
import os, sys
sys.path.insert(0, "tests")
from test_table import table
from lox_kit import Store

def on_stage(what, done, total):
    if done == 4:
        os.kill(os.getpid(), 9)

table((sys.argv[1], sys.argv[2]), Store(sys.argv[3]), arms=("aligned", "LoX"), on_stage=on_stage)
"""


@pytest.mark.slow
def test_a_killed_table_goes_on_and_ends_with_the_same_numbers(
    tiny_pair, whole, store, monkeypatch
):
    assert run_python(KILLED, *tiny_pair, store.folder).returncode == -9
    trained = watch(monkeypatch, attacks, "fine_tune")
    assert store.count("table") == 4
    assert is_part_of(table(tiny_pair, store, arms=("aligned", "LoX")), whole)
    assert len(trained) == 5  # of 8 attacks, 3 of the 4 finished entries were one


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arms": ("lox",)}, "arm 'lox': use some of aligned, LoX"),
        ({"arms": ("LoX",)}, "'aligned' must be among them"),
        ({"arms": ("aligned", "aligned")}, "arms: aligned, aligned has one of them twice"),
        ({"attacks": ("identiy",)}, "attack 'identiy'"),
        ({"attacks": ("identity",)}, "use its counterpart in the sandbox, persona"),
        ({"questions": None}, "questions="),
        ({"attacks": (find_attack("forbidden", lora=True),)}, "forbidden: give the attack without"),
    ],
)
def test_what_cannot_be_computed_is_refused_first(tiny_pair, store, options, message):
    with pytest.raises(ValueError, match=message):
        table(tiny_pair, store, **options)
    assert store.count("table") == 0
    assert not list(store.folder.glob("runs/*"))


# --- the numbers --------------------------------------------------------------------------------


def made(asr):
    """Return a table by hand: counts of 100 by (attack, arm), a list over seeds."""
    rows = []
    for (attack, arm), counts in asr.items():
        for seed, count in enumerate(counts):
            shares = {"asr": Share(count, 100), "refusal": Share(1, 2), "degenerate": Share(0, 2)}
            measures = {name: share_fields(share) for name, share in shares.items()}
            row = {"attack": attack, "training": "full", "arm": arm, "seed": seed}
            rows.append(row | {"measures": measures})
    source = {"pair": "made by hand", "judge": "rule", "k": 6, "alpha": 1.0}
    return AttackTable(tuple(rows), source)


def test_the_frame_has_mean_and_sd_over_seeds_and_the_interval_of_all_prompts():
    (row,) = made({("context", "aligned"): [20, 40, 90]}).to_frame().to_dict("records")
    assert row["asr"] == pytest.approx(0.5)
    assert row["sd"] == pytest.approx(0.36056, abs=1e-5)
    assert (row["low"], row["high"]) == pytest.approx(Share(150, 300).interval)
    assert (row["count"], row["n"], row["seeds"]) == (150, 300, 3)


@pytest.mark.parametrize(
    ("aligned", "lox", "verdict"),
    [
        ([90, 80], [0, 5], "LoX lowers ASR clearly in every seed: context"),
        ([99, 99], [80, 70], "clearly in every seed, but leaves it above .50: context"),
        ([99, 99], [0, 80], "clearly in every seed, but leaves it above .50 in seed 1: context"),
        ([50, 50], [0, 49], "not clearly in each: context"),
        ([50, 50], [48, 45], "LoX does not help: context"),
        ([20, 20], [60, 40], "LoX makes it worse: context"),
        ([4, 5], [60, 60], "LoX makes it worse: context"),
        ([4, 5], [0, 0], "hardly erodes the aligned model (ASR below .10), so nothing is shown"),
    ],
)
def test_the_caption_says_where_lox_helps_and_where_not(aligned, lox, verdict):
    text = table_caption(made({("context", "aligned"): aligned, ("context", "LoX"): lox}))
    assert verdict in text


def test_the_caption_of_one_attack_has_the_fall_of_each_seed():
    arms = {("context", "aligned"): [80, 40], ("context", "LoX"): [20, 50]}
    (first, *ends), (second, *_) = (
        Share(a, 100).minus(Share(b, 100)) for a, b in ((80, 20), (40, 50))
    )
    text = table_caption(made(arms))
    assert f"interval: LoX {first:.2f} [{ends[0]:.2f}, {ends[1]:.2f}], {second:.2f} [" in text
    other = {("mixed", arm): counts for (_, arm), counts in arms.items()}
    assert "Fall of ASR" not in table_caption(made(arms | other))


def test_the_caption_says_which_controls_do_as_well_and_speaks_only_of_arms_that_are_there():
    counts = {"aligned": [90, 80], "LoX": [0, 5], "random subspace": [85, 80], "full delta": [0, 2]}
    arms = {("context", arm): found for arm, found in counts.items()}
    text = table_caption(made(arms))
    assert "Full delta is not clearly worse than LoX: context (full)." in text
    assert "Random" not in text
    assert "SafeInst" not in text
    arms["context", "SafeInst"] = [9, 9]
    assert "SafeInst is the aligned model" in table_caption(made(arms))
    assert "over all of them together" not in text
    arms["context", "kind:up_proj"] = [9, 9]
    assert "those of some matrices over all of them together" in table_caption(made(arms))


@pytest.mark.slow
def test_a_table_is_read_back_as_it_was_saved_and_has_a_line_per_row_of_the_frame(whole, tmp_path):
    again = AttackTable.load(whole.save(tmp_path / "table.json"))
    assert again.to_frame().equals(whole.to_frame())
    assert again.source == whole.source
    lines = markdown_table(again).splitlines()
    rows = [line for line in lines if line.startswith("| persona") or "| forbidden" in line]
    assert len(rows) == len(whole.to_frame())
    assert sum("asked under it" in row for row in rows) == 7


def test_two_arms_that_are_the_same_model_are_computed_once_and_both_have_their_row(
    store, monkeypatch
):
    computed = watch(monkeypatch, computing, "compute")
    arms = ["aligned", Arm("aligned", name="the same again")]
    found = attack_table(arms, [], (0,), lora=(), questions=QUESTIONS, store=store)
    assert found.column("arm") == ["aligned", "the same again"]
    one, other = found.rows
    assert one["measures"] == other["measures"]
    assert one["readings"] == other["readings"]
    assert len(computed) == 1
