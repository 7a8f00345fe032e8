"""Where the time of `lox factor`, and of one cell of a landscape, goes.

    python benchmarks/profiles.py                 # about two minutes
    python benchmarks/profiles.py --hidden 256    # whether it runs

Two layers with TinyLlama's shapes are made on disk, dropped from the page cache and factored at
rank 64. The cell is of a random Llama of eight layers, `--hidden` / 4 wide, in float32: it is
moved along six directions of each matrix, and 24 prompts are answered with 24 tokens. torch's
profiler counts the seconds in which its operations keep a thread busy; what is left is Python,
and waiting for the disk.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import click
import torch
from gpu import resident
from landscape import low_rank
from llama_pair import make_pair
from lox_edit import forget, machine, print_lines
from torch.profiler import ProfilerActivity, profile

from lox_kit import Line, SafetySubspace
from lox_kit.landscape import Walk
from lox_kit.models import Model, generate

RANK, PROMPTS, TOKENS = 64, 24, 24
KINDS = {  # an operation is of the first kind of which its name has a part
    "matrix products": ("mm", "bmm", "matmul", "linear"),
    "attention": ("attention", "softmax"),
    "QR, SVD and eigenvalues": ("qr", "svd", "eigh", "geqrf", "orgqr", "cholesky", "triangular"),
    "random numbers": ("normal", "rand"),
    "copies and changes of dtype": ("copy", "_to", "cat", "fill", "zero", "index", "gather"),
    "other arithmetic": ("",),
}


@click.command()
@click.option("--hidden", default=2048, help="width of the layers that are factored")
def main(hidden: int) -> None:
    """Profile both and print two tables."""
    print_lines(machine())
    with tempfile.TemporaryDirectory(prefix="lox-") as folder:
        base, aligned = make_pair(Path(folder), hidden=hidden, layers=2)
        forget(base, aligned)
        out = Path(folder) / "S.safetensors"
        show(
            f"factor, hidden {hidden}, two layers, rank {RANK}",
            lambda: SafetySubspace.from_pair(base, aligned, out, rank=RANK),
        )
    model = resident("cpu", 8, hidden=hidden // 4)
    model.module.float()
    texts = [f"w{i + 2} w3 w4 w5 w6 w7" for i in range(PROMPTS)]
    with Walk(model, Line.along(model, low_rank(model))) as walk:
        answer(walk.go((0.5,)), texts)  # what is set up once is not counted
        show("cell, weights", lambda: walk.go((1.0,)))
        show(f"cell, {PROMPTS} x {TOKENS} tokens", lambda: answer(model, texts))


def answer(model: Model, texts: list[str]) -> list[str]:
    """Return what the model answers, in batches."""
    return generate(model, texts, max_new_tokens=TOKENS)


def show(what: str, work: Callable[[], object]) -> None:
    """Do some work under the profiler, and print where its time went."""
    every = torch._C._profiler._ExperimentalConfig(profile_all_threads=True)
    begin = time.perf_counter()
    with profile(activities=[ProfilerActivity.CPU], experimental_config=every) as seen:
        work()
        seconds = time.perf_counter() - begin
    spent: Counter[str] = Counter()
    for event in seen.key_averages():
        name = event.key.removeprefix("aten::")
        kind = next(k for k, parts in KINDS.items() if any(part in name for part in parts))
        spent[kind] += event.self_cpu_time_total / 1e6
    threads = min(torch.get_num_threads(), os.cpu_count() or 1)
    spent["Python, the disk, a thread without work"] = threads * seconds - sum(spent.values())
    print(f"\n{what}: {seconds:.2f} s\n\n| | seconds | share of {threads} threads |\n|---|---|---|")
    for kind, busy in spent.most_common():
        print(f"| {kind} | {busy:.2f} | {busy / seconds / threads:.0%} |")


if __name__ == "__main__":
    main()
