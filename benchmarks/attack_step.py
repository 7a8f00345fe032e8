"""What a training step of an attack costs, against a bare PyTorch loop on the same batches.

    python benchmarks/attack_step.py

Both train the sandbox's aligned model on the arithmetic attack's rows, one after the other in this
process, several rounds in turn; the bare loop does forward, loss, backward, clipping and AdamW and
nothing else. What TRL's trainer adds is the difference of the two medians. Steps are timed from the
end of one to the end of the next, so that everything in between is counted.
"""

from __future__ import annotations

import copy
import json
import statistics
import time
from itertools import pairwise

import click
import torch

from lox_kit import find_attack, load_model
from lox_kit.attacks import IGNORED, fine_tune, tokenize
from lox_kit.threads import fitting_threads

LIMIT_MS = 15.0


def trainer_steps(model, attack) -> list[float]:
    """Return seconds per optimiser step of `fine_tune`, the first left out."""
    ends = []
    fine_tune(
        copy.deepcopy(model.module),
        model.tokenizer,
        attack.data(model.tokenizer),
        attack.settings,
        on_step=lambda step: ends.append(time.perf_counter()),
    )
    return [b - a for a, b in pairwise(ends)]


def bare_steps(model, attack) -> list[float]:
    """Return seconds per step of a bare loop over batches padded on the right."""
    module, settings = copy.deepcopy(model.module).train(), attack.settings
    rows = attack.data(model.tokenizer)
    data = tokenize(model.tokenizer, rows, settings.loss_on, settings.max_length)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()
    optimiser = torch.optim.AdamW(module.parameters(), settings.learning_rate, weight_decay=0.0)
    ends = []
    with fitting_threads(module):
        for step in range(settings.max_steps):
            chosen = order[step * settings.batch_size : (step + 1) * settings.batch_size]
            longest = max(len(data["input_ids"][i]) for i in chosen)
            ids, labels, mask = (
                torch.tensor([row + [fill] * (longest - len(row)) for row in rows])
                for rows, fill in (
                    ([data["input_ids"][i] for i in chosen], 0),
                    ([data["labels"][i] for i in chosen], IGNORED),
                    ([[1] * len(data["input_ids"][i]) for i in chosen], 0),
                )
            )
            module(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), settings.max_grad_norm)
            optimiser.step()
            optimiser.zero_grad()
            ends.append(time.perf_counter())
    return [b - a for a, b in pairwise(ends)]


@click.command()
@click.option("--rounds", default=5, show_default=True)
@click.option("--steps", default=60, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(rounds: int, steps: int, as_json: bool) -> None:
    """Print milliseconds a step, both ways, and what the trainer adds."""
    model = load_model("sandbox/aligned", device="cpu")
    attack = find_attack("arithmetic", max_steps=steps)
    times: dict[str, list[float]] = {"trainer": [], "bare": []}
    for _ in range(rounds):
        times["bare"] += bare_steps(model, attack)
        times["trainer"] += trainer_steps(model, attack)
    found = {name: 1000 * statistics.median(t) for name, t in times.items()}
    found["added"] = found["trainer"] - found["bare"]
    if as_json:
        click.echo(json.dumps(found))
        return
    for name, ms in found.items():
        click.echo(f"{name:8} {ms:6.1f} ms a step")
    click.echo(f"wanted: the trainer adds at most {LIMIT_MS:g} ms")


if __name__ == "__main__":
    main()
