"""The real small model: what drafts save over a landscape, and what no answer can cost less than.

    python benchmarks/smol.py ATTACKED [--cells 9] [--prompts 24] [--tokens 16]

ATTACKED is smol/aligned after an attack (`lox attack chat smol/aligned -o ATTACKED`). Along the
line from smol/aligned to it, every cell is asked in plain batches and with drafts, by turns; the
answers have to be the same, token by token. The floor is one pass over each prompt and its answer.
"""

from __future__ import annotations

import argparse
import time

import torch

from lox_kit import load_model, smol_prompts
from lox_kit.landscape import Asr, Line, Walk
from lox_kit.models import generate, prefill, render


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("attacked")
    parser.add_argument("--cells", type=int, default=9)
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--tokens", type=int, default=16)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model("smol/aligned")
    prompts = smol_prompts("forbidden", "dev", given.prompts)
    texts = render(model.tokenizer, prompts)
    probe = Asr(prompts, "keyword", max_new_tokens=given.tokens).prepare(model)
    spent, same = dict.fromkeys(("plain", "drafts", "floor"), 0.0), 0
    line = Line.along("smol/aligned", given.attacked, unit="direction")
    with Walk(model, line) as walk:
        for i in range(given.cells):
            walk.go((i / (given.cells - 1),))
            plain = timed(
                spent, "plain", lambda: generate(model, texts, max_new_tokens=given.tokens)
            )
            drafted = timed(spent, "drafts", lambda: probe.run(model))["answers"]
            whole = model.tokenizer([t + a for t, a in zip(texts, plain, strict=True)])["input_ids"]
            timed(spent, "floor", lambda rows=whole: floor(model, rows))
            same += sum(a == b for a, b in zip(plain, drafted, strict=True))
    n = given.cells * given.prompts
    print(f"{same} of {n} answers are the same")
    for name, seconds in spent.items():
        ratio = spent["plain"] / seconds
        print(f"{name:7} {seconds / given.cells:6.2f} s of processor time a cell, {ratio:.2f} x")


def timed(spent: dict[str, float], name: str, run):
    """Return what `run` returns, its processor time added to what was spent."""
    start = time.process_time()
    made = run()
    spent[name] += time.process_time() - start
    return made


@torch.inference_mode()
def floor(model, rows) -> None:
    """Put prompts with their answers through the model once."""
    prefill(model, rows)


if __name__ == "__main__":
    main()
