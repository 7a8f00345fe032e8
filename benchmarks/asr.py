"""Answering 96 prompts in batches against one prompt at a time, in the same run.

    python benchmarks/asr.py [--prompts 96] [--tokens 60] [--threads N] [--repeats 3] [--json FILE]
    python benchmarks/asr.py --quick

Two models: the sandbox's aligned one, and a random Llama of 100 million parameters that is made in
a temporary folder and loaded like any checkpoint. No store is used: every answer is generated. In
float32 the answers of both ways are compared; in bfloat16, where they may differ, `measure_asr`
has to say how large its batches were.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer

from lox_kit import load_model, measure_asr, sandbox_prompts
from lox_kit.models import Model, Prompt, generate, render
from lox_kit.sandbox import world
from lox_kit.weights import quiet_transformers

WANTED = 8.0  # times faster
FEW = 8  # prompts that bfloat16 answers one at a time as well
SHAPE = {"hidden_size": 640, "intermediate_size": 1728, "num_hidden_layers": 12}
HEADS = {"num_attention_heads": 10, "num_key_value_heads": 10}


@dataclasses.dataclass(frozen=True)
class Measured:
    """One model, both ways."""

    model: str
    parameters: int
    prompts: int
    tokens: int  # at most, of each answer
    words: int  # in all answers
    batched: list[float]  # seconds by the clock, and of all cores' work; medians
    single: list[float]
    identical: int  # answers that are the same, in float32
    batch_sizes: list[int]  # of the same prompts in bfloat16, as the result records them
    identical_bf16: int  # of the first few prompts in bfloat16
    few: int

    @property
    def faster(self) -> list[float]:
        """How many times, by the clock and in work."""
        return [slow / fast for slow, fast in zip(self.single, self.batched, strict=True)]


def main() -> None:
    """Measure both models and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=96)
    parser.add_argument("--tokens", type=int, default=60)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=3, help="of the batched way; the median")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here as well")
    parser.add_argument("--quick", action="store_true", help="8 prompts, 8 tokens: a smoke check")
    options = parser.parse_args()
    n, tokens = (8, 8) if options.quick else (options.prompts, options.tokens)
    torch.set_num_threads(options.threads)
    quiet_transformers()
    prompts = sandbox_prompts("forbidden", "dev", n // 2)
    prompts += sandbox_prompts("allowed", "dev", n - len(prompts))
    print(f"{machine()}; {options.threads} threads, {len(prompts)} prompts x {tokens} tokens")
    found = []
    with tempfile.TemporaryDirectory(prefix="lox-") as folder:
        for name in ("sandbox/aligned", random_llama(Path(folder) / "random-100m")):
            found.append(measure(name, prompts, tokens, options.repeats))
            print_one(found[-1])
    if options.json:
        numbers = {"machine": machine(), "threads": options.threads}
        numbers["models"] = [dataclasses.asdict(m) | {"faster": m.faster} for m in found]
        options.json.write_text(json.dumps(numbers, indent=1) + "\n")


def random_llama(folder: Path) -> Path:
    """Write a random Llama of 100 million parameters, every token of which is a word."""
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    config = LlamaConfig(**SHAPE, **HEADS, **special)
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    fast = world.tokenizer()
    known = world.vocabulary()
    words = known + [f"word{i}" for i in range(len(known), config.vocab_size)]
    text = json.loads(fast.backend_tokenizer.to_str())
    text["model"]["vocab"] = {word: i for i, word in enumerate(words)}
    wide = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(text)), **fast.special_tokens_map
    )
    wide.chat_template = fast.chat_template
    wide.save_pretrained(folder)
    return folder


def measure(name: str | Path, prompts: list[Prompt], tokens: int, repeats: int) -> Measured:
    """Let one model answer in batches, then one prompt at a time."""
    model = load_model(name, device="cpu", dtype="float32")
    texts = render(model.tokenizer, prompts)
    generate(model, texts[:2], max_new_tokens=2)  # what is made once, is made before
    batches, singles, single = [], [], []
    for i in range(repeats):  # by turns: a machine that slows down on the way slows both
        batched, took = timed(lambda: generate(model, texts, max_new_tokens=tokens))
        batches.append(took)
        part = texts[len(texts) * i // repeats : len(texts) * (i + 1) // repeats]
        answers, took = timed(lambda part=part: one_at_a_time(model, part, tokens))
        single += answers
        singles.append(took)
    half = load_model(name, device="cpu", dtype="bfloat16")
    result = measure_asr(half, prompts, ["keyword"], max_new_tokens=tokens)
    alone = one_at_a_time(half, texts[:FEW], tokens)
    return Measured(
        model=Path(name).name,
        parameters=sum(p.numel() for p in model.module.parameters()),
        prompts=len(texts),
        tokens=tokens,
        words=sum(len(answer.split()) for answer in batched),
        batched=[sorted(times)[repeats // 2] for times in zip(*batches, strict=True)],
        single=[sum(times) for times in zip(*singles, strict=True)],
        identical=same(batched, single),
        batch_sizes=result.source["batch_sizes"],
        identical_bf16=same(result.responses[:FEW], alone),
        few=len(alone),
    )


def timed(work: Callable[[], list[str]]) -> tuple[list[str], tuple[float, float]]:
    """Return what `work` returns, and what it took: by the clock, and of all cores' work."""
    clock, cpu = time.perf_counter(), time.process_time()
    done = work()
    return done, (time.perf_counter() - clock, time.process_time() - cpu)


def one_at_a_time(model: Model, texts: list[str], tokens: int) -> list[str]:
    """Return the answers as a loop over prompts gives them."""
    return [generate(model, [text], max_new_tokens=tokens)[0] for text in texts]


def same(first, second) -> int:
    """Return how many answers are the same."""
    return sum(a == b for a, b in zip(first, second, strict=True))


def print_one(m: Measured) -> None:
    """Print one model's numbers."""
    verdict = "met" if m.faster[0] >= WANTED else "NOT met"
    if m.prompts < WANTED * 4:
        verdict = "of many more prompts"
    print(
        f"{m.model} ({m.parameters / 1e6:.1f} M parameters, {m.words} words generated)\n"
        f"  by the clock: batched {m.batched[0]:.2f} s, one at a time {m.single[0]:.2f} s, "
        f"{m.faster[0]:.1f} x faster (wanted {WANTED:g} x: {verdict})\n"
        f"  in work: {m.batched[1]:.2f} s and {m.single[1]:.2f} s, {m.faster[1]:.1f} x less\n"
        f"  float32: {m.identical} of {m.prompts} greedy answers identical\n"
        f"  bfloat16: recorded batch sizes {m.batch_sizes}; "
        f"{m.identical_bf16} of {m.few} answers as one at a time",
        flush=True,
    )


def machine() -> str:
    """Return what this runs on."""
    return f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"


if __name__ == "__main__":
    main()
