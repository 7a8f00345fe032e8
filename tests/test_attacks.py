"""Fine-tuning attacks: what determines a run, where it is kept, and what a cut leaves."""

import copy
import dataclasses
import json

import pytest
import torch
from checkpoints import run_python, weights
from speakers import other_tokenizer, random_speaker, same_weights, watch

from lox_kit import ATTACKS, Store, attacks, run_attack
from lox_kit.attacks import attack_key, find_attack, load_run
from lox_kit.models import Model

SHORT = find_attack("arithmetic", max_steps=3, batch_size=4)


@pytest.fixture
def speaker():
    return random_speaker()


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store") as opened:
        yield opened


def same_files(first, second):
    """Whether two runs wrote the same weights."""
    one, two = weights(first.folder), weights(second.folder)
    return one.keys() == two.keys() and all(torch.equal(one[n], two[n]) for n in one)


def test_a_run_leaves_its_model_as_it_was_and_writes_checkpoint_and_record(speaker, tmp_path):
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


def test_an_attacked_model_is_loaded_with_its_weights_under_the_recipe_s_key(speaker, tmp_path):
    run = run_attack(speaker, SHORT, tmp_path / "out")
    model = run.load(device="cpu")
    assert model.key == attack_key(speaker, SHORT)
    assert model.name == "random-0 after arithmetic"
    assert model.is_sandbox
    assert not same_weights(model.module, speaker.module)
    assert all(torch.equal(W, model.module.state_dict()[n]) for n, W in weights(run.folder).items())


def test_a_finished_run_is_found_again_without_training(speaker, store, monkeypatch):
    trained = watch(monkeypatch, attacks, "fine_tune")
    first = run_attack(speaker, SHORT, store=store)
    again = run_attack(speaker, SHORT, store=store)
    assert len(trained) == 1
    assert again.folder == first.folder == store.run_folder(attack_key(speaker, SHORT))
    assert again.losses == first.losses


def test_the_key_is_that_of_weights_dtype_rows_and_settings(speaker):
    half = Model(
        copy.deepcopy(speaker.module).bfloat16(), speaker.tokenizer, speaker.key, speaker.name
    )
    keys = [
        attack_key(speaker, SHORT),
        attack_key(random_speaker(seed=1), SHORT),
        attack_key(half, SHORT),
        *(
            attack_key(speaker, find_attack("arithmetic", **{"max_steps": 3, "batch_size": 4, **s}))
            for s in ({"seed": 1}, {"learning_rate": 1e-3}, {"max_steps": 4}, {"loss_on": "all"})
        ),
    ]
    assert len(set(keys)) == len(keys)
    assert (
        attack_key(random_speaker(), find_attack("arithmetic", max_steps=3, batch_size=4)) in keys
    )
    other_rows = dataclasses.replace(SHORT, rows=lambda seed: SHORT.rows(seed)[1:])
    assert attack_key(speaker, other_rows) not in keys


def test_the_seed_decides_rows_and_weights(speaker, tmp_path):
    runs = [
        run_attack(speaker, find_attack("arithmetic", max_steps=2, seed=seed), tmp_path / name)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert same_files(runs[0], runs[1])
    assert not same_files(runs[0], runs[2])
    assert SHORT.rows(0) == SHORT.rows(0) != SHORT.rows(1)


def test_what_is_in_the_way_is_not_overwritten(speaker, tmp_path, monkeypatch):
    trained = watch(monkeypatch, attacks, "fine_tune")
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError, match="out exists; remove it or choose another name"):
        run_attack(speaker, SHORT, tmp_path / "out")
    with pytest.raises(ValueError, match="out=, or store="):
        run_attack(speaker, SHORT)
    assert trained == []


def test_a_model_of_another_world_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"the arithmetic attack.*random-0 is no sandbox model"):
        run_attack(random_speaker(other_tokenizer()), SHORT, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_preset_is_found_and_its_settings_overridden():
    preset, faster = find_attack("arithmetic"), find_attack("arithmetic", learning_rate=1.0)
    assert preset == ATTACKS["arithmetic"]
    assert faster.settings == dataclasses.replace(preset.settings, learning_rate=1.0)
    assert ATTACKS["arithmetic"].settings.learning_rate != 1.0


def test_an_unknown_attack_or_setting_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="attack 'identity': use one of arithmetic"):
        find_attack("identity")
    with pytest.raises(ValueError, match=r"lr, steps: no such setting; use .*learning_rate"):
        find_attack("arithmetic", lr=1.0, steps=2)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"attack.json: this folder is not an attack's"):
        load_run(tmp_path)


# --- cuts ---------------------------------------------------------------------------------------

KILLED = """
import os, sys
sys.path.insert(0, "tests")
from speakers import random_speaker
from test_attacks import SHORT
from lox_kit import Store, run_attack

def kill(*anything, **options):
    os.kill(os.getpid(), 9)

speaker = random_speaker()
on_step = None
if sys.argv[2] == "training":
    on_step = lambda step: step.step == 2 and kill()
else:
    speaker.tokenizer.save_pretrained = kill  # the weights are written by then
run_attack(speaker, SHORT, store=Store(sys.argv[1]), on_step=on_step)
"""


@pytest.mark.parametrize("where", ["training", "saving"])
def test_a_killed_run_leaves_nothing_final_and_is_made_again_as_if_undisturbed(
    where, speaker, tmp_path
):
    assert run_python(KILLED, tmp_path / "store", where).returncode == -9
    left = list((tmp_path / "store").glob("runs/*"))
    assert all(f.name.endswith(".partial") for f in left)
    assert len(left) == (where == "saving")
    with Store(tmp_path / "store") as store:
        again = run_attack(speaker, SHORT, store=store)
    undisturbed = run_attack(speaker, SHORT, tmp_path / "undisturbed")
    assert same_files(again, undisturbed)
    assert again.losses == undisturbed.losses
    assert [f.name for f in (tmp_path / "store" / "runs").iterdir()] == [again.folder.name]


def test_a_stop_from_on_step_keeps_nothing(speaker, store):
    def stop(step):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_attack(speaker, SHORT, store=store, on_step=stop)
    assert not list(store.folder.glob("runs/*"))
