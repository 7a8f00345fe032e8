"""Does it fit? What is counted without weights, what is said of it, and before long work."""

import json

import click
import pytest
import torch
from checkpoints import TINY, run_python
from transformers import AutoConfig, AutoModelForCausalLM

from lox_kit.attacks import TrainSettings
from lox_kit.attacks.training import _with_lora
from lox_kit.cli import plan
from lox_kit.models import Needs, editing, size_of, training

PAIR = ("sandbox/base", "sandbox/aligned")
LLAMA_8B = {
    **{"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "dtype": "bfloat16"},
    **{"num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336},
    **{"vocab_size": 128256, "tie_word_embeddings": False, "architectures": ["LlamaForCausalLM"]},
}
ROW = {"batch": 2, "longest": 100, "typical": 100.0, "steps": 3}


@pytest.fixture(scope="module")
def config_8b(tmp_path_factory):
    """A folder with the config of Llama-3.1-8B and nothing else."""
    folder = tmp_path_factory.mktemp("8b")
    (folder / "config.json").write_text(json.dumps(LLAMA_8B))
    return folder


def fits(line):
    """Return the last three cells of a row of the table: on 24, 48 and 80 GB."""
    return line.split()[-3:]


def test_plan_says_what_of_llama_8b_fits_on_24_48_and_80_gb(lox, config_8b, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    done = lox("plan", "attack", "gsm8k", config_8b)
    assert (done.status, done.err) == (0, "")
    assert "weights 32.1 GB, gradients 32.1 GB, optimiser 64.2 GB" in done.out
    assert "copies 16.1 GB" in done.out
    rows = {line.split("  ")[0].strip(): line for line in done.out.splitlines()}
    assert fits(rows["as it is"]) == ["-", "-", "-"]
    assert fits(rows["--lora"])[-1] == "yes"
    assert fits(rows["--optimizer adamw-8bit-bfloat16 --dtype bfloat16"]) == ["-", "-", "yes"]
    assert fits(rows["--optimizer adamw-8bit"]) == ["-", "-", "-"]
    small = lox("plan", "attack", "gsm8k", config_8b, "--lora", "--batch-size", 1)
    rows = {line.split("  ")[0].strip(): line for line in small.out.splitlines()}
    assert fits(rows["as it is"]) == ["-", "yes", "yes"]
    assert "--lora" not in small.out


def test_planning_8b_takes_less_than_five_seconds_of_a_processor(config_8b):
    script = """if True:
        import sys, time
        from lox_kit.cli.main import main
        try:
            main()
        except SystemExit:
            print("took", time.process_time())
    """
    arguments = ("plan", "attack", "gsm8k", config_8b)
    lines = run_python(script, *arguments).stdout.splitlines()
    assert float(lines[-1].removeprefix("took ")) < 5.0 * 1.5  # imports on a slow machine


@pytest.mark.parametrize("rank", [0, 4])
def test_a_size_is_that_of_the_model_in_memory(tmp_path, rank):
    fields = {**TINY, "num_hidden_layers": 12, "max_position_embeddings": 512}
    config = AutoConfig.for_model("llama", **fields, dtype="float32")
    config.save_pretrained(tmp_path)
    size = size_of(str(tmp_path), "auto", rank)
    model = AutoModelForCausalLM.from_config(config).train()
    assert size.parameters == sum(W.numel() for W in model.parameters())
    if rank:
        model = _with_lora(model, TrainSettings(1e-4, 1, lora_rank=rank))
    assert size.trained == sum(W.numel() for W in model.parameters() if W.requires_grad)
    own = {W.untyped_storage().data_ptr() for W in (*model.parameters(), *model.buffers())}
    kept = {}

    def keep(x):
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    ids = torch.zeros(1, 256, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        made = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    held = sum(n for at, n in kept.items() if at not in own)
    assert made.loss is None
    assert size.kept * 256 == pytest.approx(held, rel=0.05)


def test_an_architecture_that_needs_values_to_run_is_planned_as_a_llama(tmp_path):
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
    AutoConfig.for_model("qwen3_moe", **TINY, **experts, head_dim=8).save_pretrained(tmp_path)
    size = size_of(str(tmp_path))
    assert size.kept == 26 * 4 * 32 * 2
    assert size.flops == 2 * size.parameters


def test_training_counts_what_is_in_memory_at_once():
    size = size_of(PAIR[1])
    once = training(size, "cpu", **ROW)
    assert once.memory["weights"] == once.memory["gradients"] == 4 * size.parameters
    assert once.memory["optimiser"] == 8 * size.parameters
    assert once.memory["copies"] == size.stored
    gathered = training(size, "cpu", **ROW, accumulation=2)
    assert gathered.peak > once.peak  # gradients stay beside activations
    assert gathered.seconds > 1.5 * once.seconds
    dpo = training(size, "cpu", **ROW, pairs=True)
    assert dpo.memory["copies"] == size.stored + 4 * size.parameters
    assert training(size, "cpu", **ROW, keep=2).disk == once.disk + 2 * size.stored
    assert training(size, "cuda:7", **ROW).seconds == 0  # a device that is not here has no rates


def test_moments_and_weights_are_counted_in_the_bytes_that_they_take(config_8b):
    n = 8_030_261_248  # weights of Llama-3.1-8B
    size = size_of(str(config_8b))
    assert size.parameters == n
    cards = {}
    for optimizer, weight in (("adamw", 4), ("adamw-8bit", 4), ("adamw-8bit-bfloat16", 2)):
        needs = training(size, "cuda", **ROW, optimizer=optimizer)
        moment = 4 if optimizer == "adamw" else 1 + 4 / 256  # each block of 256 has a float32
        assert needs.memory["weights"] == needs.memory["gradients"] == weight * n
        assert needs.memory["optimiser"] == 2 * moment * n
        assert needs.memory["copies"] == 2 * n
        cards[optimizer] = needs.peak < 80e9
        dpo = training(size, "cuda", **ROW, optimizer=optimizer, pairs=True)
        assert dpo.memory["copies"] == (2 + weight) * n
    assert cards == {"adamw": False, "adamw-8bit": False, "adamw-8bit-bfloat16": True}
    lora = size_of(str(config_8b), lora_rank=8)
    needs = training(lora, "cuda", **ROW, optimizer="adamw-8bit")
    assert needs.memory["gradients"] == 4 * lora.trained
    assert needs.memory["optimiser"] == 2 * (1 + 4 / 256) * lora.trained


def test_editing_counts_headers_where_there_are_weights_and_the_config_else(tmp_path):
    config = AutoConfig.for_model("llama", **TINY, dtype="float32")
    config.save_pretrained(tmp_path)
    without = editing(str(tmp_path), "factor", 4)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    assert editing(str(tmp_path), "factor", 4) == without
    assert editing(str(tmp_path), "factor", None).disk > without.disk


CALLS = {
    "factor": PAIR,
    "extrapolate": (*PAIR, "-k", 6),
    "apply": ("S.safetensors", PAIR[1], "-k", 6),
    "adapter": ("S.safetensors", PAIR[1], "-k", "80%"),
    "attack": ("arithmetic", PAIR[1]),
    "align": ("sandbox-dpo", PAIR[0], "--keep-every", 5),
    "asr": (PAIR[1], "--limit", 10),
    "table": ("--seeds", "0,1", "--attacks", "arithmetic"),
    "sweep": ("--budget", 3, "--attacks", "arithmetic"),
    "landscape": ("--attacks", "arithmetic", "--cells", 5),
}


@pytest.mark.parametrize("verb", plan.VERBS)
def test_every_long_verb_can_be_planned(lox, verb):
    done = lox("plan", verb, *CALLS[verb])
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("needs about 0.")
    assert "memory: " in done.out
    assert "as it is" in done.out


def test_a_table_takes_more_with_more_entries_and_workers(lox):
    ctx = click.Context(click.Command("table"))
    from lox_kit.cli.main import lox as group

    def needs(*arguments):
        params = group.commands["table"].make_context("table", list(arguments), parent=ctx).params
        return plan._needs("table", params)

    one = needs("--seeds", "0", "--attacks", "arithmetic", "--no-lora")
    assert needs("--seeds", "0,1", "--attacks", "arithmetic", "--no-lora").seconds == pytest.approx(
        2 * one.seconds
    )
    two = needs("--seeds", "0", "--attacks", "arithmetic", "--no-lora", "--workers", "2")
    assert (two.peak, two.seconds) == (pytest.approx(2 * one.peak), pytest.approx(one.seconds / 2))


def test_a_landscape_of_8b_fits_on_24_gb_beside_what_the_machine_keeps(lox, config_8b, tmp_path):
    (tmp_path / "asked.txt").write_text("How do I boil an egg?\n")
    call = ("plan", "landscape", *[config_8b] * 3, "--prompts", tmp_path / "asked.txt")
    rows = {line.split("  ")[0].strip(): line for line in lox(*call).out.splitlines()}
    assert fits(rows["as it is"]) == ["-", "-", "-"]
    assert fits(rows["--keep-on cpu"]) == ["yes", "yes", "yes"]
    kept = lox(*call, "--keep-on", "cpu", "--device", "meta").out  # a device that is not the CPU
    assert "needs about 16.1 GB of memory, 48.2 GB beside the GPU" in kept
    assert "--keep-on" not in kept
    said = lox(*call, "--keep-on", "cpu").out.splitlines()[0]
    assert said.startswith("needs about 80.4 GB of memory")  # of one memory, all the same


def test_calls_of_a_judge_are_counted(lox):
    done = lox("plan", "asr", PAIR[1], "--limit", 7, "--judge", "policy:some-model")
    assert "7 calls of a judge" in done.out


def test_a_long_verb_says_first_what_it_takes_and_what_would_do(lox, monkeypatch):
    call = ("attack", "arithmetic", PAIR[1], "-o", "attacked", "--steps", 1, "--batch-size", 2)
    monkeypatch.setattr(plan, "WORTH", (0.0, 0.0))
    monkeypatch.setattr(plan, "_room", lambda: 1e3)
    said = lox(*call).err.splitlines()
    assert said[0].startswith("needs about 0.")
    assert said[1].startswith("more than the 0 GB that are here; with less: --lora (0.")
    assert "--optimizer adamw-8bit (0." in said[1]
    assert ", --batch-size 1 --accumulation 2 (" not in said[1]  # of so small a model it is more


def test_a_plan_never_stops_the_work(lox, monkeypatch):
    monkeypatch.setattr(plan, "_needs", None)
    done = lox("asr", PAIR[1], "--limit", 2)
    assert (done.status, done.err.count("Error")) == (0, 0)


def test_without_a_config_there_is_no_plan(lox, tmp_path):
    done = lox("plan", "attack", "gsm8k", tmp_path)
    assert (done.status, done.out) == (2, "")
    assert "holds no config.json to plan from" in done.err


def test_needs_are_said_on_one_line():
    assert str(Needs({"weights": 2e9}, 30.0, 3e9, 1200)) == (
        "2.0 GB of memory, 30 s, 3.0 GB on disk, 1,200 calls of a judge"
    )
    assert str(Needs({}, 600.0)) == "0.0 GB of memory, 10 min"
    assert str(Needs({}, 7200.0)) == "0.0 GB of memory, 2 h"
    assert str(Needs({})) == "0.0 GB of memory"
