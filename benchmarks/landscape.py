"""Time and memory of a landscape, against rebuilding a state dict and asking one prompt at a time.

    python benchmarks/landscape.py [--workers 2] [--cells 21] [--margin-cells 41] [--json FILE]
    python benchmarks/landscape.py --quick

Speed is measured on the sandbox's seed 0 on the paper's plane of the arithmetic attack: the plain
way on some cells spread over the grid, ours on the same cells in one process, and ours on the whole
grid, shared among worker processes, their start included. The answers of both ways are compared.
Memory is measured in a fresh process each, on a random Llama of a size at which weights dominate.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from lox_kit import SafetySubspace, Store, load_model, run_attack, sandbox_prompts
from lox_kit.attacks import find_attack
from lox_kit.extrapolation import LowRank
from lox_kit.landscape import (
    Asr,
    Direction,
    Grid,
    Line,
    Plane,
    RefusalMargin,
    Walk,
    between,
    evaluate,
    lox_direction,
    weights_of,
)
from lox_kit.models import Model, render
from lox_kit.studies import arm_model
from lox_kit.threads import fitting_threads

TOKENS = 16
FASTER, MINUTES = 20.0, 2.0  # what is demanded
MEMORY = {"dense": 2.2, "low-rank": 1.2}  # most above the resident model, in units of its weights
STATUS = Path("/proc/self/status")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cells", type=int, default=21, help="a side of the ASR grid")
    parser.add_argument("--margin-cells", type=int, default=41, help="a side of the margin grid")
    parser.add_argument("--plain", type=int, default=6, help="cells measured the plain way")
    parser.add_argument("--prompts", type=int, default=96)
    parser.add_argument("--hidden", type=int, default=1024, help="of the model for memory")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here as well")
    parser.add_argument("--quick", action="store_true", help="small grids: a smoke check")
    parser.add_argument("--memory", nargs=2, metavar=("KIND", "DTYPE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        print(json.dumps(measure_memory(*options.memory, options.hidden)))
        return
    if options.quick:
        options.cells = options.margin_cells = 5
        options.plain, options.prompts, options.hidden = 2, 24, 256
    numbers = {"speed": measure_speed(options), "memory": {}}
    print(f"\nPeak above the resident model, hidden size {options.hidden}, in units of its weights")
    for kind in MEMORY:
        for dtype in ("float32", "bfloat16"):
            took = in_fresh_process(kind, dtype, options.hidden)
            numbers["memory"][f"{kind} {dtype}"] = took
            print(
                f"  one {kind} direction, {dtype:8}  {took['peak_mb'] / took['weights_mb']:.2f}   "
                f"(limit {MEMORY[kind]}; weights {took['weights_mb']:.0f} MB)"
            )
    if options.json:
        options.json.write_text(json.dumps(numbers, indent=1) + "\n")


# --- speed ------------------------------------------------------------------------------------


def measure_speed(options) -> dict:
    """Measure both ways on the sandbox and print."""
    with tempfile.TemporaryDirectory(prefix="lox-") as folder, Store(folder) as store:
        aligned = load_model("sandbox/aligned", device="cpu")
        plane = paper_plane(aligned, store)
        prompts = sandbox_prompts("forbidden", "test", limit=options.prompts)
        asr, margin = Asr(prompts, "rule", max_new_tokens=TOKENS), RefusalMargin(prompts)
        grid = Grid.around(plane, options.cells)
        some = grid.indices[:: max(1, grid.size // options.plain)][: options.plain]
        plain, one = side_by_side(aligned, plane, [grid.at(i) for i in some], asr)
        numbers = {"plain_s_per_cell": plain, "ours_s_per_cell": one, "faster": plain / one}
        print(f"{len(prompts)} prompts; {len(some)} cells both ways, one process each")
        print(f"  plain {plain:6.2f} s per cell\n  ours  {one:6.3f} s per cell")
        print(f"  {plain / one:.0f} times faster (at least {FASTER:.0f} demanded)")
        for name, metric, cells in (
            ("ASR", asr, options.cells),
            ("refusal margin", margin, options.margin_cells),
        ):
            grid = Grid.around(plane, cells)
            start = time.perf_counter()
            with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
                evaluate(plane, grid, metric, aligned, store=store, executor=pool)
            seconds = time.perf_counter() - start
            numbers[f"{name} {cells} x {cells}"] = seconds
            print(
                f"{cells} x {cells} cells of {name}, {options.workers} workers: {seconds:.1f} s, "
                f"start included (under {60 * MINUTES:.0f} demanded); "
                f"{plain * grid.size / seconds:.0f} times faster than plain in one process"
            )
    return numbers


def paper_plane(aligned: Model, store: Store) -> Plane:
    """Return the paper's plane of the arithmetic attack on seed 0."""
    subspace = SafetySubspace.from_pair("sandbox/base", "sandbox/aligned", rank="full")
    lox = arm_model("LoX", aligned, subspace, 6, 1.0)
    runs = [run_attack(m, find_attack("arithmetic"), store=store).load() for m in (aligned, lox)]
    return Plane.from_models(aligned, lox_direction(subspace, 6), *runs)


def side_by_side(aligned: Model, plane: Plane, places: list, metric: Asr) -> tuple[float, float]:
    """Return seconds per cell the plain way and ours, cell by cell in turn; compare the answers."""
    state = {n: W.detach().clone() for n, W in aligned.module.state_dict().items()}
    dense = [dense_parts(d) for d in plane.directions]
    probe = metric.prepare(aligned)
    plain = ours = 0.0
    other = load_model("sandbox/aligned", device="cpu")
    with Walk(aligned, plane) as walk:
        probe.run(walk.go(places[0]))  # what is set up once is not counted
        for at in places:
            start = time.perf_counter()
            slow = plain_cell(other, state, dense, plane.coefficients(at), metric)
            middle = time.perf_counter()
            fast = probe.run(walk.go(at))["answers"]
            ours += time.perf_counter() - middle
            plain += middle - start
            if slow != fast:
                n = sum(a != b for a, b in zip(slow, fast, strict=True))
                print(f"  at {at}: {n} of {len(fast)} answers differ (ties within a rounding)")
    return plain / len(places), ours / len(places)


def dense_parts(direction: Direction) -> dict[str, torch.Tensor]:
    """Return a direction as whole tensors."""
    return {n: p.dense() if isinstance(p, LowRank) else p for n, p in direction.parts.items()}


@torch.inference_mode()
def plain_cell(model: Model, state: dict, dense: list, coefficients, metric: Asr) -> list[str]:
    """Rebuild the state dict of one cell, load it, and ask one prompt at a time."""
    rebuilt = {}
    for name, W in state.items():
        terms = [c * d[name] for c, d in zip(coefficients, dense, strict=True) if name in d]
        rebuilt[name] = W + sum(terms) if terms else W.clone()
    model.module.load_state_dict(rebuilt)
    answers, tokenizer = [], model.tokenizer
    with fitting_threads(model.module):
        for text in render(tokenizer, metric.prompts):
            asked = tokenizer(text, add_special_tokens=False, return_tensors="pt")
            ids = asked["input_ids"]
            made = model.module.generate(
                input_ids=ids,
                attention_mask=asked["attention_mask"],
                max_new_tokens=TOKENS,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
            )
            answers.append(tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True))
    return answers


# --- memory -----------------------------------------------------------------------------------


def in_fresh_process(kind: str, dtype: str, hidden: int) -> dict:
    """Run `measure_memory` in an interpreter of its own."""
    command = [sys.executable, __file__, "--memory", kind, dtype, "--hidden", str(hidden)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{kind}, {dtype}: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure_memory(kind: str, dtype: str, hidden: int) -> dict:
    """Return the weights and the peak above them while one line is made and walked, in MB.

    The dense direction leads to a checkpoint on disk; the low-rank one has six directions per
    matrix, as LoX.
    """
    with tempfile.TemporaryDirectory(prefix="lox-") as folder:
        module = random_llama(hidden).to(getattr(torch, dtype))
        weights = sum(W.numel() * W.element_size() for W in module.parameters())
        with torch.no_grad():
            for W in module.parameters():
                W.mul_(1.03)
            module.save_pretrained(folder)
            for W in module.parameters():
                W.div_(1.03)
        model = Model(module, None, "random", "a random Llama")
        forget_peak()
        before = status_mb("VmRSS")
        line = Line.along(model, low_rank(model) if kind == "low-rank" else between(model, folder))
        with Walk(model, line) as walk, torch.inference_mode():
            for a in (0.5, -0.5, 1.0):
                walk.go((a,)).module(input_ids=torch.zeros(1, 8, dtype=torch.long))
        peak = status_mb("VmHWM") - before
    return {"weights_mb": weights / 1e6, "peak_mb": peak}


def random_llama(hidden: int):
    """Return a random Llama of 12 layers in float32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            hidden_size=hidden,
            intermediate_size=hidden * 11 // 4,
            num_hidden_layers=12,
            num_attention_heads=16,
            num_key_value_heads=16,
            vocab_size=4000,
        )
    ).eval()


def low_rank(model: Model) -> Direction:
    """Return six random directions per matrix."""
    shapes = {n: t.shape for n, t in weights_of(model).tensors.items() if len(t.shape) == 2}
    parts = {n: LowRank(torch.randn(out, 6), torch.randn(6, i)) for n, (out, i) in shapes.items()}
    return Direction(parts, "random rank 6", "six directions")


def forget_peak() -> None:
    """Make the kernel count the peak of resident memory from now on (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def status_mb(field: str) -> float:
    """Return a field of /proc/self/status in MB."""
    line = next(x for x in STATUS.read_text().splitlines() if x.startswith(f"{field}:"))
    return int(line.split()[1]) / 976.5625


if __name__ == "__main__":
    main()
