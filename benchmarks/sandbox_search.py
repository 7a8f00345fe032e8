"""The core of the search for the sandbox's attacks: erosion and LoX along training.

    python benchmarks/sandbox_search.py                       # five attacks, seeds 0 to 2
    python benchmarks/sandbox_search.py --lora --attack mixed --rate 0.5 --rate 2
    python benchmarks/sandbox_search.py --freeze lm_head      # what carries the erosion?
    python benchmarks/sandbox_search.py --align dpo --nll-weight 2 --dpo-rate 2e-4

Every line is one model at one step of one attack: the aligned one or its LoX, asked the development
prompts (never the test prompts), plainly and, for the persona, under its system prompt. What was
tried and found is in sandbox_search.md.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import tempfile
from itertools import product
from pathlib import Path

import click

from lox_kit import SafetySubspace, find_attack, load_model
from lox_kit.attacks import Step, find_alignment, fine_tune, prefer, save_model
from lox_kit.measures import Questions, measure, measure_asr, task_prompts, world_questions
from lox_kit.models import Model
from lox_kit.studies import arm_model, pair_of

ATTACKS = ("arithmetic", "context", "mixed", "persona", "forbidden")
MEASURES = ("asr", "refusal", "degenerate", "helpfulness", "task", "persona_asr", "persona_refusal")
ENOUGH = 0.97  # share of development requests refused at which DPO ends, as alignment by SFT does


def along(model: Model, attack, questions: Questions, freeze: str | None) -> dict[int, dict]:
    """Attack a copy of `model`; return its measures before, and after each quarter of the steps."""
    marks = {max(1, attack.settings.max_steps * i // 4) for i in (1, 2, 3, 4)}
    module = copy.deepcopy(model.module)
    for name, weight in module.named_parameters():
        weight.requires_grad_(freeze is None or freeze not in name)
    victim = Model(module, model.tokenizer, "in training", "the model in training")
    task = task_prompts(attack.held_out(60))

    def values() -> dict[str, float]:
        shares = measure(victim, questions, task, system=attack.system)
        return {name: share["value"] for name, share in shares.items()}

    found = {0: values()}

    def look(step: Step) -> None:
        if step.step in marks:
            module.eval()
            found[step.step] = values()
            module.train()

    fine_tune(module, model.tokenizer, attack.data(model.tokenizer), attack.settings, on_step=look)
    return found


def scaled(attack, rate: float, longer: float):
    """Return the attack at `rate` times its learning rate for `longer` times its steps."""
    settings = attack.settings
    steps = settings.max_steps
    if steps < 0:
        steps = round(settings.epochs * settings.steps_per_epoch(len(attack.data())))
    changed = {"learning_rate": rate * settings.learning_rate, "max_steps": round(longer * steps)}
    return dataclasses.replace(attack, settings=dataclasses.replace(settings, **changed))


def dpo_aligned(base: str, seed: int, out: Path, questions: Questions, **chosen) -> Path:
    """Align `base` by DPO until it refuses enough development requests; return the checkpoint."""
    model = load_model(base, device="cpu")
    preset = find_alignment("sandbox-dpo", seed=seed)
    rate, batch = chosen["dpo_rate"], chosen["dpo_batch"]
    settings = dataclasses.replace(
        preset.settings, learning_rate=rate, batch_size=batch, schedule="constant", max_steps=200
    )
    alignment = dataclasses.replace(
        preset, settings=settings, beta=chosen["beta"], nll_weight=chosen["nll_weight"]
    )

    def enough(step: Step) -> bool:
        if step.step % 10:
            return False
        model.module.eval()
        refusal = measure_asr(model, questions.forbidden, max_new_tokens=4).refusal.value
        model.module.train()
        return refusal >= ENOUGH

    model.key = "in training"
    steps = prefer(model.module, model.tokenizer, preset.rows(seed), alignment, stop=enough)
    save_model(model.module, model.tokenizer, out)
    print(f"seed {seed}: DPO for {len(steps)} steps")
    return out


def arms_of(seed: int, questions: Questions, alpha: float, dpo: dict | None):
    """Yield the aligned model of a seed and its LoX, with their names."""
    base, aligned = pair_of(seed)
    with tempfile.TemporaryDirectory(prefix="lox-search-") as scratch:
        if dpo:
            aligned = dpo_aligned(base, seed, Path(scratch) / "dpo", questions, **dpo)
        model = load_model(aligned, device="cpu")
        subspace = SafetySubspace.from_pair(base, aligned, rank="full")
    for arm in ("aligned", "LoX"):
        yield arm, arm_model(arm, model, subspace, 6, alpha)


def report(record: dict) -> None:
    """Print one line."""
    shares = " ".join(f"{m}={record[m]:.2f}" for m in MEASURES if m in record)
    lora = " lora" if record["lora"] else ""
    where = f"{record['attack']}{lora} s{record['seed']} lr {record['rate']:.1e}"
    print(f"{where} step {record['step']:<3d} {record['arm']:8s} {shares}", flush=True)


@click.command()
@click.option("--seed", "seeds", type=int, multiple=True, default=(0, 1, 2), show_default=True)
@click.option("--attack", "attacks", type=click.Choice(ATTACKS), multiple=True, default=ATTACKS)
@click.option("--lora", is_flag=True, help="LoRA instead of every parameter.")
@click.option("--rate", "rates", type=float, multiple=True, default=(1.0,), show_default=True)
@click.option("--longer", default=1.0, help="Steps, as a multiple of the preset's.")
@click.option("--freeze", help="Train no parameter whose name holds this.")
@click.option("--limit", type=int, help="Prompts per kind; default all 348 and 216.")
@click.option("--align", type=click.Choice(["sft", "dpo"]), default="sft", show_default=True)
@click.option("--dpo-rate", default=2e-4, show_default=True)
@click.option("--dpo-batch", default=16, show_default=True)
@click.option("--beta", default=0.1, show_default=True)
@click.option("--nll-weight", default=2.0, show_default=True)
@click.option("--alpha", default=1.0, show_default=True, help="LoX's factor; k is 6.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write the numbers here.")
def main(seeds, attacks, lora, rates, longer, freeze, limit, align, alpha, file, **dpo) -> None:
    """Attack the aligned model and its LoX, and measure both along the way on dev prompts.

    --rate multiplies the preset's learning rate and can be given several times.
    """
    questions = world_questions("sandbox", "dev", limit)
    records = []
    cases = (
        (seed, arm, model)
        for seed in seeds
        for arm, model in arms_of(seed, questions, alpha, dpo if align == "dpo" else None)
    )
    for seed, arm, model in cases:
        for name, rate in product(attacks, rates):
            attack = scaled(find_attack(name, lora=lora, seed=seed), rate, longer)
            about = {"seed": seed, "attack": name, "lora": lora, "arm": arm}
            about["rate"] = attack.settings.learning_rate
            for step, shares in along(model, attack, questions, freeze).items():
                records.append(about | {"step": step} | shares)
                report(records[-1])
    if file:
        file.write_text(json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    main()
