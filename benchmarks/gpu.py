"""What a GPU makes of it at the shapes of a 7 B model, each number beside its floor.

    python benchmarks/gpu.py                            # one GPU of 80 GB: meant to take 8 minutes
    python benchmarks/gpu.py --device cpu --size tiny   # whether it runs

torch, transformers and peft are enough. Weights are random, in bfloat16. A pair of two layers is
made on disk, factored and edited, and its times multiplied by the weights; training has as many
layers as fit, by a bare loop (TRL is not needed here: see attack_step.py for what it adds). Floors
are bytes or operations over what this device does (`lox_kit.models.machine_rates`).
"""

from __future__ import annotations

import dataclasses
import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import click
import torch
from llama_pair import llama_config, make_pair
from lox_edit import megabytes, weights
from plan import word_tokenizer
from scale import SIZES

from lox_kit import Line, LoxDial, SafetySubspace, apply_lox
from lox_kit.landscape import Walk, lox_direction, random_direction
from lox_kit.models import Model, generate, generate_likely, machine_rates

RANK, K, ALPHA = 64, 6, 1.25
PAIR_LAYERS, TRAINED_LAYERS = 2, 10
PROMPTS, TOKENS, ALONE = 100, 60, 10
ROWS, LENGTH, STEPS = 8, 512, 4  # of a training step


@dataclasses.dataclass
class Row:
    """One number, what it could be at best, and what is wanted of it."""

    what: str
    value: float
    unit: str
    floor: float | None = None
    wanted: str = ""


def timed(device: str, work: Callable[[], object], times: int = 5) -> float:
    """Return the median seconds of some work, the first time left out."""
    found = []
    for _ in range(times + 1):
        _wait(device)
        begin = time.perf_counter()
        work()
        _wait(device)
        found.append(time.perf_counter() - begin)
    return median(found[1:])


def _wait(device: str) -> None:
    if device != "cpu":
        torch.accelerator.synchronize()


def resident(device: str, layers: int, **fields: int) -> Model:
    """Return a random model in bfloat16 that was made on the device."""
    from transformers import AutoConfig, AutoModelForCausalLM

    made = llama_config(fields.pop("hidden"), layers) | fields | {"eos_token_id": 1}
    del made["model_type"], made["torch_dtype"]
    config = AutoConfig.for_model("llama", **made)
    with torch.device(device):
        module = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    module.generation_config.eos_token_id = None  # answers are as long as may be
    return Model(module, word_tokenizer(config.vocab_size), "random", "a random Llama")


def edit(device: str, layers: int, **fields: int) -> tuple[list[Row], SafetySubspace]:
    """Return rows of factoring and editing on disk, and the subspace of a model of all layers."""
    with tempfile.TemporaryDirectory(prefix="lox-") as folder:
        base, aligned = make_pair(Path(folder), layers=PAIR_LAYERS, **fields)
        begin = time.perf_counter()
        subspace = SafetySubspace.from_pair(base, aligned, rank=RANK, device=device)
        factored = time.perf_counter()
        apply_lox(subspace, aligned, Path(folder) / "edited", K, ALPHA)
        edited = time.perf_counter() - factored
        size = megabytes(*weights(aligned)) * 1e6
    whole = deepened(subspace, layers)
    share = sum(map(_size, whole.info["shapes"])) / sum(map(_size, subspace.info["shapes"]))
    disk = machine_rates("cpu")["disk"]
    return [
        Row(f"factor, rank {RANK}, x {share:.1f}", share * (factored - begin), "s",
            2 * share * size / disk),
        Row(f"apply, x {share:.1f}", share * edited, "s", 2 * share * size / disk),
    ], whole  # fmt: skip


def _size(shape: list[int]) -> int:
    return shape[0] * shape[1]


def deepened(pair: SafetySubspace, layers: int) -> SafetySubspace:
    """Return the subspace of a model of more layers, each with the factors of layer 0."""
    factors = {name: pair[name] for name in pair if ".layers." not in name}
    for name in (n for n in pair if ".layers.0." in n):
        factors |= {name.replace(".0.", f".{i}.", 1): pair[name] for i in range(layers)}
    shapes = [list(f.shape) for f in factors.values()]
    return SafetySubspace(pair.info | {"layers": list(factors), "shapes": shapes}, factors=factors)


def turned(device: str, model: Model, subspace: SafetySubspace) -> list[Row]:
    """Return rows of the dial, of a landscape's cells, and of decoding before and after an edit."""
    size = sum(W.numel() * W.element_size() for W in model.module.parameters())
    floor = 2 * size / machine_rates(device)["memory"]  # read a copy, write the weights
    texts = [f"w{i + 2} w3 w4" for i in range(PROMPTS)]

    def decode(model: Model = model) -> list[str]:
        return generate(model, texts[:1], max_new_tokens=TOKENS)

    plain = timed(device, decode, 3)
    token = size / machine_rates(device)["memory"] * TOKENS
    rows = [Row("decode, plain", plain / TOKENS * 1e3, "ms a token", token / TOKENS * 1e3)]
    dial = LoxDial(model, subspace)
    alphas = iter(range(1, 100))
    seconds = timed(device, lambda: dial.set(k=K, alpha=next(alphas) / 50))
    rows.append(Row("dial", 1e3 * seconds, "ms", 1e3 * floor, "at most 50 ms"))
    rows.append(Row("decode, merged", timed(device, decode, 3) / plain, "x plain", 1.0, "1.01"))
    dial.off()
    for name, direction in (
        ("low-rank", lox_direction(subspace, K)),
        ("dense", random_direction(model, 0)),
    ):
        places = iter(range(1, 100))
        with Walk(model, Line.along(model, direction)) as walk:
            seconds = timed(device, lambda: walk.go((next(places) / 50,)))  # noqa: B023
        best = floor * (1.5 if name == "dense" else 1.0)  # which is read as well
        rows.append(Row(f"cell, {name}", best / seconds, "of the bandwidth", 1.0, "at least .7"))
    return rows + asked(device, model, texts) + [adapter(device, model, plain, decode)]


def asked(device: str, model: Model, texts: list[str]) -> list[Row]:
    """Return rows of answers in batches, one at a time, and where they are likely."""
    how = {"max_new_tokens": TOKENS}
    found: list[str] = []
    batched = timed(device, lambda: found.extend(generate(model, texts, **how)), 1)
    alone = timed(device, lambda: [generate(model, [t], **how) for t in texts[:ALONE]], 1)
    alone *= PROMPTS / ALONE
    likely = dict(zip(texts, ([answer] for answer in found[:PROMPTS]), strict=True))
    drafted = timed(device, lambda: generate_likely(model, texts, likely, **how), 1)
    named = f"{PROMPTS} answers of {TOKENS} tokens"
    return [
        Row(f"{named}, batches", batched, "s"),
        Row(f"{named}, one at a time ({ALONE}, multiplied)", alone / batched, "x batches"),
        Row(f"{named}, all drafted", batched / drafted, "x faster", None, "1.4"),
    ]


def adapter(device: str, model: Model, plain: float, decode: Callable) -> Row:
    """Return the row of decoding with the edit as a PEFT adapter that is not merged."""
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(r=K, target_modules="all-linear")
    with_lora = get_peft_model(model.module, lora)
    wrapped = dataclasses.replace(model, module=with_lora.eval())
    seconds = timed(device, lambda: decode(wrapped), 3)
    with_lora.unload()
    return Row("decode, adapter", seconds / plain, "x plain", 1.0, "1.6")


def trained(device: str, layers: int, **fields: int) -> list[Row]:
    """Return the row of a full step: float32 master, autocast to bfloat16, layers run again."""
    module = resident(device, layers, **fields).module.float().train()
    again = "activation" if hasattr(module, "activation_checkpointing_enable") else "gradient"
    getattr(module, f"{again}_checkpointing_enable")()  # renamed in transformers 5.23
    optimiser = torch.optim.AdamW(module.parameters(), 1e-5, fused=True)
    ids = torch.randint(2, module.config.vocab_size, (ROWS, LENGTH), device=device)

    def step() -> None:
        with torch.autocast(ids.device.type, torch.bfloat16):
            module(input_ids=ids, labels=ids).loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    seconds = timed(device, step, STEPS)
    count = sum(W.numel() for W in module.parameters())
    rates = machine_rates(device)
    floor = 8 * count * ids.numel() / rates["bfloat16"] + 28 * count / rates["memory"]
    name = f"training step, bare loop, {layers} layers, {ROWS} x {LENGTH} tokens"
    return [Row(name, seconds, "s", floor)]


@click.command()
@click.option("--device", default="cuda")
@click.option("--size", type=click.Choice(list(SIZES)), default="7b")
@click.option("--json", "out", type=Path, metavar="FILE", help="write the numbers here as well")
def main(device: str, size: str, out: Path | None) -> None:
    """Measure and print a row each as it is known."""
    import peft
    import transformers

    begin, fields = time.perf_counter(), dict(SIZES[size])
    layers = fields.pop("layers")
    card = torch.cuda.get_device_name() if device == "cuda" else platform.machine()
    click.echo(
        f"{card}, {size}; torch {torch.__version__}, transformers {transformers.__version__}, "
        f"peft {peft.__version__}, Python {platform.python_version()}\n"
    )
    click.echo("| | measured | floor | over it | wanted |\n|---|---|---|---|---|")
    found, subspace = edit(device, layers, **fields)
    show(found)
    model = resident(device, layers, **fields)
    found += show(turned(device, model, subspace))
    del model, subspace
    found += show(trained(device, min(layers, TRAINED_LAYERS), **fields))
    click.echo(f"\n{(time.perf_counter() - begin) / 60:.1f} minutes")
    if out:
        out.write_text(json.dumps([dataclasses.asdict(row) for row in found], indent=1))


def show(rows: list[Row]) -> list[Row]:
    """Print rows of the table and return them."""
    for row in rows:
        least = f"{row.floor:.3g} | {row.value / row.floor:.2f} x" if row.floor else " | "
        click.echo(f"| {row.what} | {row.value:.3g} {row.unit} | {least} | {row.wanted} |")
    return rows


if __name__ == "__main__":
    main()
