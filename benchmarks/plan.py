"""Is what `lox plan` says true? Peak memory and time of runs, beside what was said before them.

    python benchmarks/plan.py              # 100 million parameters: about 3 minutes, 4 GB of memory
    python benchmarks/plan.py --size 1b    # about 25 minutes, 19 GB of memory, 12 GB of disk: alone

Random weights are trained for two steps on rows of one length, every parameter and through LoRA,
and asked. Each run is a fresh process; what imports take is the peak of the same run of a tiny
model, which is subtracted.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import torch
from child import Took, run
from llama_pair import llama_config

from lox_kit.models import Needs, Size, answering, size_of, training

SHAPES = {  # hidden size, layers, dtype, rows in a batch, tokens of a row
    "tiny": (64, 2, "float32", 4, 16),
    "100m": (768, 12, "float32", 4, 512),
    "1b": (2048, 18, "bfloat16", 2, 512),
}
STEPS, ASKED, ANSWERED, WORDS = 2, 64, 16, 32000
WITHIN, FACTOR = 0.15, 2.0  # what is wanted: of the peak, of the time


def word_tokenizer(size: int):
    """Return a tokenizer whose tokens are words: w2, w3, ..."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "</s>": 1, **{f"w{i}": i for i in range(2, size)}}
    made = Tokenizer(models.WordLevel(words, "<pad>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="</s>")


def make_model(folder: Path, shape: str) -> Path:
    """Write random weights of a Llama's shapes, and a tokenizer whose tokens are words."""
    from transformers import AutoConfig, AutoModelForCausalLM

    hidden, layers, dtype, *_ = SHAPES[shape]
    fields = llama_config(hidden, layers) | {"vocab_size": WORDS if hidden >= 768 else 400}
    fields |= {"eos_token_id": 1, "pad_token_id": 0}
    del fields["model_type"], fields["torch_dtype"]
    config = AutoConfig.for_model("llama", **fields)
    AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)).save_pretrained(folder)
    word_tokenizer(config.vocab_size).save_pretrained(folder)
    return folder


def said(model: Path, shape: str) -> dict[str, Needs]:
    """Return what the plan says of each run."""
    *_, batch, length = SHAPES[shape]

    def trained(size: Size) -> Needs:
        return training(size, "cpu", batch=batch, longest=length, typical=length, steps=STEPS)

    return {
        "attack": trained(size_of(str(model))),
        "attack --lora": trained(size_of(str(model), "auto", 8)),
        "asr": answering(size_of(str(model)), "cpu", ASKED, ANSWERED, None),
    }


def measured(folder: Path, model: Path, shape: str) -> Iterator[tuple[str, Took]]:
    """Yield the name of each run, and what it took."""
    *_, batch, length = SHAPES[shape]
    rows, asked = folder / f"{shape}.jsonl", folder / f"{shape}.txt"
    half = " ".join(["w7"] * (length // 2))
    rows.write_text((json.dumps({"prompt": half + " ", "completion": half}) + "\n") * batch * STEPS)
    asked.write_text("".join(f"w{2 + i}{' w9' * 149}\n" for i in range(ASKED)))
    how = ("--form", "text", "--steps", STEPS, "--batch-size", batch, "--accumulation", 1)
    verbs = {
        "attack": ("attack", rows, model, "-o", folder / f"{shape}-full", *how),
        "attack --lora": ("attack", rows, model, "-o", folder / f"{shape}-lora", "--lora", *how),
        "asr": (
            *("asr", model, "--prompts", asked, "--judge", "keyword", "--template", "paper"),
            *("--max-new-tokens", ANSWERED),
        ),
    }
    report, cache = folder / "took", folder / "cache"
    for name, verb in verbs.items():
        yield name, run("lox", "--store", folder / "store", *verb, report=report, cache=cache)


@click.command()
@click.option("--size", type=click.Choice(["100m", "1b"]), default="100m")
@click.option("--folder", help="Where the models go; default the system's temporary folder.")
def main(size: str, folder: str | None) -> None:
    """Print a table: said and measured."""
    with tempfile.TemporaryDirectory(prefix="lox-", dir=folder) as temporary:
        work = Path(temporary)
        models = {shape: make_model(work / shape, shape) for shape in ("tiny", size)}
        bare, plans = dict(measured(work, models["tiny"], "tiny")), said(models[size], size)
        click.echo("| | memory said | measured | ratio | time said | measured | ratio |")
        click.echo("|---|---|---|---|---|---|---|")
        for name, took in measured(work, models[size], size):
            plan, memory = plans[name], took.peak_mb - bare[name].peak_mb
            seconds = took.seconds - bare[name].seconds
            click.echo(
                f"| {name} | {plan.peak / 1e6:.0f} MB | {memory:.0f} MB | "
                f"{plan.peak / 1e6 / memory:.2f} | {plan.seconds:.1f} s | {seconds:.1f} s | "
                f"{plan.seconds / seconds:.2f} |"
            )
    click.echo(f"wanted: memory within {WITHIN:.0%}, time within a factor of {FACTOR:g}")


if __name__ == "__main__":
    main()
