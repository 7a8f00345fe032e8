"""Alignments of the real small model on development requests: refusal against over-refusal.

    python benchmarks/smol_search.py [--lr 2e-4] [--steps 60] [--refusals 0.25] [--seed 0] [-o DIR]
    python benchmarks/smol_search.py --attack chat [--lr 2e-4] [--steps 40] --model smol/aligned

Aligns smol/base with other settings than the preset's, or attacks a model with other settings than
the attack's, and asks development requests on the way. Twelve minutes of processor time an
alignment. No test request is asked.
"""

from __future__ import annotations

import click

from lox_kit import find_attack, load_model
from lox_kit.attacks import Step, find_alignment, fine_tune, save_model
from lox_kit.measures import measure_asr, world_questions
from lox_kit.models import Model
from lox_kit.smol import rows


@click.command()
@click.option("--lr", type=float)
@click.option("--steps", type=int)
@click.option("--rows", "n", default=960, help="Of the alignment.")
@click.option("--refusals", default=rows.ALIGNED[0], help="Their share of the alignment's rows.")
@click.option("--attack", help="Attack --model instead of aligning.")
@click.option("--model", "name", default="smol/base")
@click.option("--every", default=20, help="Steps between two measurements.")
@click.option("--limit", default=60, help="Requests of each kind on the way; all at the end.")
@click.option("--seed", default=0)
@click.option("-o", "--out", help="Write the model.")
def main(lr, steps, n, refusals, attack, name, every, limit, seed, out):
    """Train, measure and print."""
    given = {"learning_rate": lr, "max_steps": steps, "seed": seed}
    given = {name: value for name, value in given.items() if value is not None}
    model = load_model(name)
    if attack:
        preset = find_attack(attack, **given)
        data = preset.data(model.tokenizer)
    else:
        preset = find_alignment("smol", **given)
        rest = (1 - refusals) / (1 - rows.ALIGNED[0])
        rows.ALIGNED = (refusals, *(part * rest for part in rows.ALIGNED[1:]))
        data = rows.alignment(n, seed)

    def on_step(step: Step) -> None:
        if step.step % every == 0 and step.step < step.total:
            report(f"step {step.step}", model, limit)

    report("before", model, limit)
    fine_tune(model.module, model.tokenizer, data, preset.settings, on_step=on_step)
    report("after", model, None)
    if out:
        save_model(model.module, model.tokenizer, out)


def report(when: str, model: Model, limit: int | None) -> None:
    """Print refusal of the forbidden development requests, and of the allowed ones."""
    asked = world_questions("smol", "dev", limit)
    training = model.module.training
    model.module.eval()
    kinds = (asked.forbidden, asked.allowed)
    refused = [measure_asr(model, kind, ["keyword"], **asked.how).refusal for kind in kinds]
    model.module.train(training)
    click.echo(f"{when}: refusal {refused[0]}, over-refusal {refused[1]}")


if __name__ == "__main__":
    main()
