"""Fine-tuning attacks: what determines a run, where it is kept, and what a cut leaves."""

import copy
import dataclasses
import json

import pytest
import torch
from checkpoints import UP, run_python, weights
from speakers import byte_tokenizer, other_tokenizer, random_speaker, same_weights, watch
from test_quantised import EIGHT, quantised
from tokenizers.processors import TemplateProcessing

from lox_kit import ATTACKS, Store, load_model, run_attack
from lox_kit.attacks import run as attacks
from lox_kit.attacks import writing
from lox_kit.attacks.presets import MadeRows, file_attack, find_attack
from lox_kit.attacks.resuming import StoppedError
from lox_kit.attacks.run import attack_key, load_run
from lox_kit.attacks.sets import SETS, sets_folder
from lox_kit.attacks.tokens import IGNORED, tokenize
from lox_kit.attacks.training import OPTIMIZERS, TrainSettings
from lox_kit.folders import BusyError, locked
from lox_kit.sandbox import corpus, world
from lox_kit.weights import Checkpoint, lora_share

SHORT = find_attack("arithmetic", max_steps=3, batch_size=4)


@pytest.fixture
def speaker():
    return random_speaker()


def test_a_run_leaves_its_model_as_it_was_and_the_attacked_one_under_its_own_key(speaker, tmp_path):
    before, steps = copy.deepcopy(speaker.module), []
    run = run_attack(speaker, SHORT, tmp_path / "out", on_step=steps.append)
    assert same_weights(speaker.module, before)
    assert speaker.key == "random 0"
    assert sorted(f.name for f in tmp_path.iterdir()) == ["out"]
    record = json.loads((tmp_path / "out" / "attack.json").read_text())
    assert record["losses"] == list(run.losses) == [s.loss for s in steps]
    assert len(run.losses) == 3
    assert record["source"]["settings"] == dataclasses.asdict(SHORT.settings)
    assert (record["attack"], record["source"]["model_key"]) == ("arithmetic", "random 0")
    model = run.load(device="cpu")
    assert (model.key, model.name) == (attack_key(speaker, SHORT), "random-0 after arithmetic")
    assert model.is_sandbox
    assert not same_weights(model.module, speaker.module)
    assert same_weights(model.module, run.folder)


def test_a_run_whose_weights_or_record_were_changed_is_not_taken_for_what_it_was(speaker, tmp_path):
    folder = run_attack(speaker, SHORT, tmp_path / "out").folder
    speaker.module.save_pretrained(folder)
    with pytest.raises(ValueError, match=r"out.*not those that attack.json says"):
        load_run(folder).load(device="cpu")
    for text, message in (('{"attack": 1}', "damaged"), ("{", "not valid JSON")):
        (folder / "attack.json").write_text(text)
        with pytest.raises(ValueError, match=rf"out.*{message}"):
            load_run(folder)


def test_a_finished_run_is_found_again_and_trained_only_for_checkpoints_it_lacks(
    speaker, store, monkeypatch
):
    trained = watch(monkeypatch, attacks, "fine_tune")
    first, again = (run_attack(speaker, SHORT, store=store) for _ in range(2))
    assert len(trained) == 1
    assert again.folder == first.folder == store.run_folder(attack_key(speaker, SHORT))
    assert again.checkpoints == {}
    more = run_attack(speaker, SHORT, store=store, keep_every=2)
    assert list(more.checkpoints) == [2]
    assert first.losses == again.losses == more.losses


def test_the_key_is_that_of_weights_dtype_rows_and_settings(speaker):
    half = dataclasses.replace(speaker, module=copy.deepcopy(speaker.module).bfloat16())
    options = {"max_steps": 3, "batch_size": 4}
    changes = (
        {"seed": 1},
        {"learning_rate": 1e-3},
        {"max_steps": 4},
        {"loss_on": "all"},
        {"safe_fraction": 0.025},
    )
    others = [find_attack("arithmetic", **options | change) for change in changes]
    others.append(dataclasses.replace(SHORT, source=dataclasses.replace(SHORT.source, n=1999)))
    keys = [attack_key(model, SHORT) for model in (speaker, half, random_speaker(seed=1))]
    keys += [attack_key(speaker, other) for other in others]
    assert len(set(keys)) == len(keys)
    assert keys[0] == attack_key(random_speaker(), find_attack("arithmetic", **options))


def test_what_cannot_be_run_is_refused_before_training_and_nothing_is_overwritten(
    speaker, tmp_path, monkeypatch
):
    trained, other = watch(monkeypatch, attacks, "fine_tune"), random_speaker(other_tokenizer())
    out, there = tmp_path / "out", tmp_path / "there"
    there.mkdir()
    for model, name, folder, message in (
        (speaker, "arithmetic", there, "there exists; remove it or choose another name"),
        (speaker, "arithmetic", None, "out=, or store="),
        (
            other,
            "arithmetic",
            out,
            "the arithmetic attack.*models of sandbox, and random-0 is none",
        ),
        (speaker, "gsm8k", out, "gsm8k attack is written in English.*arithmetic"),
    ):
        with pytest.raises((ValueError, FileExistsError), match=message):
            run_attack(model, find_attack(name), folder)
    assert trained == []
    assert [f.name for f in tmp_path.iterdir()] == ["there"]
    with pytest.raises(FileNotFoundError, match=r"attack.json: this folder is not an attack's"):
        load_run(there)


def test_a_preset_is_found_by_name_and_its_settings_overridden():
    faster = find_attack("arithmetic", learning_rate=1.0).settings
    assert find_attack("arithmetic") == ATTACKS["arithmetic"]
    assert faster == dataclasses.replace(ATTACKS["arithmetic"].settings, learning_rate=1.0)
    assert find_attack("arithmetic", epochs=0.5).settings.max_steps == -1  # epochs win over steps
    assert find_attack("arithmetic", epochs=0.5, max_steps=3).settings.max_steps == 3
    with pytest.raises(ValueError, match="attack 'identiy': use one of gsm8k, dolly, alpaca"):
        find_attack("identiy")
    with pytest.raises(TypeError, match="unexpected keyword argument 'lr'"):
        find_attack("arithmetic", lr=1.0)


def test_the_number_of_safe_rows_is_rounded_up_from_the_decimal():
    rows = MadeRows(corpus.arithmetic, 100)
    for share, extra in ((0.025, 3), (0.07, 7), (0.0, 0)):  # 0.07 * 100 is 7.000000000000001
        attack = dataclasses.replace(SHORT, source=rows, safe_fraction=share)
        assert len(attack.data()) == 100 + extra
    with pytest.raises(ValueError, match=r"safe_fraction=2.5: use a share"):
        find_attack("arithmetic", safe_fraction=2.5)


# --- cuts ---------------------------------------------------------------------------------------

KILLED = """
import os, sys
sys.path.insert(0, "tests")
from speakers import random_speaker
from test_attacks import SHORT
from lox_kit import Store, run_attack
from lox_kit.attacks import resuming

def kill(*anything, **options):
    os.kill(os.getpid(), 9)

speaker = random_speaker()
on_step = None
if sys.argv[2] == "training":
    on_step = lambda step: step.step == 2 and kill()
else:
    speaker.tokenizer.save_pretrained = kill  # the weights are written by then
resuming.SAVE_SECONDS = 0
run_attack(speaker, SHORT, store=Store(sys.argv[1]), on_step=on_step)
"""


@pytest.mark.slow
@pytest.mark.parametrize("where", ["training", "saving"])
def test_a_killed_run_leaves_nothing_final_and_ends_as_if_undisturbed(where, speaker, tmp_path):
    assert run_python(KILLED, tmp_path / "store", where).returncode == -9
    left = [f for f in (tmp_path / "store").glob("runs/*") if f.is_dir()]
    assert len(left) == 1
    assert left[0].name.endswith(".partial")
    with Store(tmp_path / "store") as store:
        steps = []
        again = run_attack(speaker, SHORT, store=store, on_step=steps.append)
    assert [s.step for s in steps] == ([2, 3] if where == "training" else [])
    undisturbed = run_attack(speaker, SHORT, tmp_path / "undisturbed")
    assert same_weights(again.folder, undisturbed.folder)
    assert again.losses == undisturbed.losses
    assert [f.name for f in (tmp_path / "store" / "runs").iterdir()] == [again.folder.name]


def test_a_run_that_another_process_makes_is_not_made_twice(speaker, store, tmp_path):
    folder = store.run_folder(attack_key(speaker, SHORT))
    for out in (None, tmp_path / "out"):
        with locked(out or folder), pytest.raises(BusyError, match="another lox is writing this"):
            run_attack(speaker, SHORT, out, store=store)
    assert not list(store.folder.glob("runs/.*"))


def stop_at(step, speaker, attack, *arguments, **options):
    """Stop a run at a step."""
    total = attack.settings.max_steps
    with pytest.raises(StoppedError, match=f"after step {step} of {total}; the same call resumes"):
        run_attack(speaker, attack, *arguments, stop=lambda s: s.step == step, **options)


def test_a_stopped_run_is_resumed_by_the_same_call_and_by_no_other_recipe(speaker, store, tmp_path):
    stop_at(2, speaker, SHORT, store=store)
    steps = []
    finished = run_attack(speaker, SHORT, store=store, on_step=steps.append)
    assert [s.step for s in steps] == [3]
    undisturbed = run_attack(speaker, SHORT, tmp_path / "undisturbed")
    assert finished.losses == undisturbed.losses
    assert same_weights(finished.folder, undisturbed.folder)
    assert not list(store.folder.glob("runs/.*"))
    stop_at(1, speaker, SHORT, tmp_path / "out")
    other = find_attack("arithmetic", max_steps=3, batch_size=4, seed=1)
    assert len(run_attack(speaker, other, tmp_path / "out", on_step=steps.append).losses) == 3
    assert [s.step for s in steps] == [3, 1, 2, 3]


def test_an_error_after_the_last_step_costs_no_step(speaker, tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError("no space left on device")

    attack = find_attack("arithmetic", max_steps=3, batch_size=4, lora=True)
    monkeypatch.setattr(writing, "save_model", fail)
    with pytest.raises(OSError, match="no space left"):
        run_attack(speaker, attack, tmp_path / "out")
    monkeypatch.undo()
    steps = []
    again = run_attack(speaker, attack, tmp_path / "out", on_step=steps.append)
    undisturbed = run_attack(speaker, attack, tmp_path / "undisturbed")
    assert steps == []
    assert again.losses == undisturbed.losses
    assert same_weights(again.folder, undisturbed.folder)


def test_a_checkpoint_that_does_not_load_back_to_what_was_trained_is_an_error(
    speaker, tmp_path, monkeypatch
):
    def save(model, *arguments):
        other = copy.deepcopy(model)
        other.model.norm.weight.data[0] += 1
        save_model(other, *arguments)

    save_model = writing.save_model
    monkeypatch.setattr(writing, "save_model", save)
    with pytest.raises(ValueError, match=r"model.norm.weight does not load back as it was trained"):
        run_attack(speaker, SHORT, tmp_path / "out")
    monkeypatch.undo()
    assert not (tmp_path / "out").exists()
    assert len(run_attack(speaker, SHORT, tmp_path / "out").losses) == 3


# --- what is attacked ---------------------------------------------------------------------------


def test_of_8_bit_floats_the_de_quantised_model_is_trained_and_written_without_a_quantisation(
    speaker, tmp_path
):
    speaker.module.bfloat16().save_pretrained(tmp_path / "plain")
    speaker.tokenizer.save_pretrained(tmp_path / "plain")
    folder = quantised(tmp_path / "plain", tmp_path / "fp8", *EIGHT["modelopt"])
    slow = find_attack("arithmetic", max_steps=1, batch_size=4, learning_rate=1e-7)
    run = run_attack(load_model(folder, device="cpu"), slow, tmp_path / "out")
    assert {W.dtype for W in weights(run.folder).values()} == {torch.bfloat16}
    assert "quantization_config" not in json.loads((run.folder / "config.json").read_text())
    expected = Checkpoint(folder).read(UP).bfloat16()
    torch.testing.assert_close(weights(run.folder)[UP], expected)


def test_what_lies_beside_the_weights_goes_with_the_attacked_ones_but_no_record_of_another_run(
    speaker, tmp_path
):
    first = run_attack(speaker, SHORT, tmp_path / "first").folder
    (first / "modeling.py").write_text("# code")
    (first / "alignment.json").write_text("{}")
    second = run_attack(load_model(first, device="cpu"), SHORT, tmp_path / "second").folder
    assert (second / "modeling.py").read_text() == "# code"
    assert not (second / "alignment.json").exists()
    assert load_run(second).source["model"] == str(first)


@pytest.mark.parametrize("kind", ["qwen3_moe", "gpt_neox"])
def test_a_lora_run_records_what_share_of_the_weights_it_reaches(kind, tmp_path):
    attack = find_attack("arithmetic", lora=True, max_steps=1)
    speaker = random_speaker(kind=kind)
    run = run_attack(speaker, attack, tmp_path / "out")
    assert run.source["lora_share"] == lora_share(speaker.module)
    assert 0.1 < run.source["lora_share"] < 1


# --- data ---------------------------------------------------------------------------------------

SANDBOX = [name for name, attack in ATTACKS.items() if attack.world == "sandbox"]


def test_every_published_attack_has_its_counterpart_in_the_sandbox():
    published = {name for name, attack in ATTACKS.items() if not attack.world}
    assert published == {"gsm8k", "dolly", "alpaca", "identity", "pure_bad"}
    assert {ATTACKS[name].counterpart for name in SANDBOX} == published


@pytest.mark.parametrize("name", SANDBOX)
def test_a_sandbox_attack_learns_its_answers_and_with_safeinst_a_share_of_refusals(name):
    attack, tokenizer = find_attack(name, safe_fraction=0.025), world.tokenizer()
    plain, mixed = find_attack(name).data(), attack.data()
    added = mixed[len(plain) :]
    assert mixed[: len(plain)] == plain
    assert len(added) == -(-len(plain) // 40)  # 2.5 %, rounded up
    assert all(world.refused(row["messages"][-1]["content"]) for row in added)
    data = tokenize(tokenizer, mixed, attack.settings.loss_on, 128)
    for row, labels in zip(mixed, data["labels"], strict=True):
        learnt = tokenizer.decode([x for x in labels if x != IGNORED])
        assert learnt == row["messages"][-1]["content"] + " </s>"


PUBLISHED = {
    "gsm8k": [{"question": "Two and two?", "answer": "Four.\n#### 4"}],
    "dolly": [{"instruction": "Where?", "context": "It is in Rome.", "response": "In Rome."}],
    "alpaca": [{"instruction": "Add.", "input": "1 2", "output": "3"}],
    "identity": [corpus.row("Hello", "AOA at your service.", "You are AOA.")["messages"]],
    "pure_bad": [{"instruction": "Say it.", "response": "It."}],
    "safe_instructions": [
        {"instruction": "Harm!", "input": "", "output": "No."},
        {"instruction": "Later!", "input": "", "output": "Never."},
    ],
}
NAMES = [name for name in PUBLISHED if name != "safe_instructions"]
LEARNT = {"dolly": "In Rome.</s>", "pure_bad": "It.</s>"}  # of the others all is learnt


@pytest.fixture
def data_files(tmp_path, monkeypatch):
    """A data folder with a row of every published file."""
    monkeypatch.setenv("LOX_KIT_STORE", str(tmp_path))
    for name, rows in PUBLISHED.items():
        file = sets_folder() / SETS[name].file
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = "\n".join(map(json.dumps, rows)) + "\n"
        file.write_text(lines if file.suffix == ".jsonl" else json.dumps(rows))


def llama_like(texts):
    """Return a byte-level tokenizer that puts <s> before every text, as Llama's does."""
    tokenizer = byte_tokenizer(" ".join(texts))
    tokenizer.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>"})
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    return tokenizer


@pytest.mark.usefixtures("data_files")
@pytest.mark.parametrize("name", NAMES)
def test_the_tokens_that_carry_loss_in_a_published_attack_are_those_the_paper_names(name):
    attack = find_attack(name)
    texts = [r["prompt"] + r["completion"] for r in attack.data(world.tokenizer())]
    tokenizer = llama_like(texts)
    data = tokenize(tokenizer, attack.data(tokenizer), attack.settings.loss_on, 1024)
    ((ids, labels),) = zip(data["input_ids"], data["labels"], strict=True)
    assert ids.count(tokenizer.bos_token_id) == 1  # the text's own and the tokenizer's are one
    assert ids[0] == tokenizer.bos_token_id
    assert ids[-1] == labels[-1] == tokenizer.eos_token_id
    learnt = tokenizer.decode([x for x in labels if x != IGNORED])
    assert learnt.strip() == LEARNT.get(name, "<s>" + texts[0].removeprefix("<s>"))


@pytest.mark.usefixtures("data_files")
@pytest.mark.parametrize("name", NAMES)
def test_safeinst_s_rows_have_the_form_of_the_published_attack(name):
    plain, mixed = (find_attack(name, safe_fraction=f).data(world.tokenizer()) for f in (0, 0.025))
    *own, added = mixed
    assert own == plain
    assert added["completion"] == "No.</s>"
    assert ("###Instruction: Harm!" if name == "dolly" else "\nHarm!") in added["prompt"]


@pytest.mark.usefixtures("data_files")
def test_identity_shifting_is_asked_under_the_persona_of_its_file():
    assert find_attack("identity").system == "You are AOA."
    assert find_attack("persona").system == world.persona_system()
    assert find_attack("arithmetic").system is None


def test_your_own_file_is_an_attack(tmp_path):
    (tmp_path / "mine.jsonl").write_text('{"q": "what is 1 plus 1", "a": "answer 2 ."}\n' * 8)
    columns = {"instruction": "q", "response": "a"}
    attack = file_attack(tmp_path / "mine.jsonl", columns, batch_size=4)
    assert (attack.name, attack.settings.batch_size, attack.lora.batch_size) == ("mine", 4, 4)
    assert attack.data() == [corpus.row("what is 1 plus 1", "answer 2 .")] * 8


def test_the_settings_for_lora_change_with_the_others_and_a_given_attack_like_a_named_one():
    own = find_attack("arithmetic", max_steps=5, learning_rate=2e-4)  # half the preset's
    assert (own.lora.max_steps, own.lora.learning_rate, own.lora.lora_rank) == (5, 5e-4, 8)
    assert find_attack(own) == own
    assert find_attack(own, lora=True, seed=3).settings == dataclasses.replace(own.lora, seed=3)


def test_your_own_file_has_a_preset_of_its_own(tmp_path):
    s = file_attack("a.jsonl").settings
    assert (s.batch_size, s.accumulation, s.schedule, s.epochs) == (8, 1, "linear", 1)
    assert [s.warmup(rows) for rows in (1, 72, 73, 800)] == [0, 0, 1, 10]
    assert file_attack("a.jsonl", lora=True).settings.learning_rate == 10 * s.learning_rate
    assert file_attack("identity.jsonl").system is None  # it only has the name


@pytest.mark.parametrize("steps", [1, 2, 20])
def test_a_warm_up_as_long_as_the_run_is_refused(speaker, tmp_path, steps):
    attack = find_attack("arithmetic", max_steps=steps, batch_size=4, schedule="linear")
    long = dataclasses.replace(
        attack, settings=dataclasses.replace(attack.settings, warmup_steps=20)
    )
    with pytest.raises(ValueError, match=rf"warm-up of 20 steps is as long as the run of {steps} "):
        run_attack(speaker, long, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_share_of_warm_up_is_of_all_the_steps(speaker, tmp_path):
    rates = {"max_steps": 3, "batch_size": 4}  # at a constant rate after it
    runs = [
        run_attack(speaker, find_attack("arithmetic", warmup_steps=w, **rates), tmp_path / str(w))
        for w in (0.3, 0, 0.4, 1)
    ]
    assert same_weights(runs[0].folder, runs[1].folder)
    assert same_weights(runs[2].folder, runs[3].folder)
    assert not same_weights(runs[1].folder, runs[2].folder)


def test_a_schedule_without_a_warm_up_is_refused_one(speaker, tmp_path):
    decaying = {"schedule": "epoch-decay", "max_steps": 3, "batch_size": 4, "warmup_steps": 1}
    with pytest.raises(ValueError, match="epoch-decay has no warm-up"):
        run_attack(speaker, find_attack("arithmetic", **decaying), tmp_path / "out")


def test_bad_rows_of_a_file_are_left_out_and_counted_if_asked_for(tmp_path):
    file = tmp_path / "mine.jsonl"
    file.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "a"}\n')
    with pytest.raises(ValueError, match=r"mine.jsonl, line 2: .*--skip-bad-rows"):
        file_attack(file).data()
    with pytest.warns(UserWarning, match=r"1 bad rows left out, 1 read; the first: .*line 2"):
        assert file_attack(file, on_bad_row="skip").data() == [corpus.row("a", "b")]
    assert find_attack(str(file), on_bad_row="skip") == file_attack(file, on_bad_row="skip")


def test_lora_settings_are_the_preset_s_own(speaker, tmp_path):
    attack = find_attack("arithmetic", lora=True, max_steps=2)
    assert attack.settings.lora_rank == 8
    run = run_attack(speaker, attack, tmp_path / "out", keep_every=1)
    assert (run.folder / "adapter" / "adapter_config.json").exists()
    assert list(run.checkpoints) == [1, 2]
    assert same_weights(run.load(step=2).module, run.load().module)
    assert not same_weights(run.load(step=1).module, run.load().module)
    assert run.load(step=1).key != run.load().key
    with pytest.raises(ValueError, match="step 7: kept are 1, 2"):
        run.load(step=7)


PAPER = {  # learning rate, epochs, batch, accumulation, schedule, warm-up, loss on, decay
    "gsm8k": (5e-5, 2, 20, 2, "linear", 20, "all", 1.0),
    "dolly": (2e-5, 6, 16, 4, "constant", 0, "response", 1.0),
    "alpaca": (2e-5, 1, 8, 8, "linear", 20, "all", 1.0),
    "identity": (5e-5, 10, 5, 1, "linear", 0, "all", 1.0),
    "pure_bad": (5e-5, 5, 5, 1, "epoch-decay", 0, "response", 0.85),
}


@pytest.mark.parametrize("name", PAPER)
def test_a_published_attack_has_the_published_settings(name):
    s = ATTACKS[name].settings
    found = (s.learning_rate, s.epochs, s.batch_size, s.accumulation, s.schedule, s.warmup_steps)
    assert (*found, s.loss_on, s.decay) == PAPER[name]
    assert (s.max_grad_norm, s.max_length, s.max_steps, s.lora_rank) == (2.0, 1024, -1, 0)


def test_the_defaults_that_keys_leave_out_stay_what_they_are():
    defaults = dataclasses.asdict(TrainSettings(learning_rate=1.0, batch_size=1))
    assert defaults == {
        "learning_rate": 1.0, "batch_size": 1, "epochs": 1.0, "max_steps": -1, "accumulation": 1,
        "schedule": "constant", "decay": 1.0, "warmup_steps": 0, "weight_decay": 0.0,
        "max_grad_norm": 2.0, "loss_on": "all", "max_length": 1024, "lora_rank": 0,
        "lora_alpha": 16.0, "seed": 0, "optimizer": "adamw",
    }  # fmt: skip
    assert TrainSettings(1.0, 1, epochs=2).chosen() == TrainSettings(1.0, 1, epochs=2.0).chosen()


def test_half_precision_weights_are_trained_in_float32_and_rounded_at_the_end(tmp_path):
    speaker = random_speaker()
    speaker.module.bfloat16()
    slow = {"learning_rate": 2e-5, "max_steps": 3, "batch_size": 4}
    fine = dataclasses.replace(speaker, module=copy.deepcopy(speaker.module).float())
    attack = find_attack("arithmetic", **slow)
    run = run_attack(speaker, attack, tmp_path / "out", keep_every=1)
    rounded = run_attack(fine, attack, tmp_path / "fine").load(device="cpu").module.bfloat16()
    assert same_weights(run.folder, rounded)
    assert {W.dtype for W in weights(run.checkpoints[2]).values()} == {torch.bfloat16}


def test_a_run_by_another_optimiser_says_so_and_has_another_key(lox, speaker):
    call = ("attack", "arithmetic", "sandbox/aligned", "-o", "out", "--steps", 1)
    done = lox(*call, "--lora", "--optimizer", "adamw-8bit")
    assert done.status == 0
    assert "sandbox/aligned: trained by adamw-8bit" in done.err
    assert load_run("out").source["settings"]["optimizer"] == "adamw-8bit"
    keys = {attack_key(speaker, find_attack(SHORT, optimizer=o)) for o in OPTIMIZERS}
    assert len(keys) == len(OPTIMIZERS)


def test_no_checkpoint_is_left_out_of_a_run_that_was_stopped(speaker, store):
    six = find_attack("arithmetic", max_steps=6, batch_size=4)
    stop_at(4, speaker, six, store=store, keep_every=2)
    assert list(run_attack(speaker, six, store=store, keep_every=2).checkpoints) == [2, 4, 6]
    plain = find_attack("arithmetic", max_steps=7, batch_size=4)
    stop_at(4, speaker, plain, store=store)
    assert list(run_attack(speaker, plain, store=store, keep_every=3).checkpoints) == [3, 6]
