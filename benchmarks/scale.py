"""The edit at real sizes: factor, apply and adapter of Llama-shaped pairs on disk.

    python benchmarks/scale.py --size 1b     # TinyLlama's shapes
    python benchmarks/scale.py --size 7b     # Llama-2-7B's; neither has been run to its end yet
    python benchmarks/scale.py --size 1b --mergekit ENV/bin/mergekit-extract-lora

Beside them stand the disk's floor (reading the pair once, copying one of it), the published
algorithm, of which one layer is measured and multiplied by the layers, and mergekit's extraction of
a LoRA of the same rank, from an environment of its own (`pip install mergekit torch==2.13.0`). Each
program is a fresh process, and the pair is dropped from the page cache before.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import click
import torch
from child import Took, run
from llama_pair import make_pair
from lox_edit import CHUNK, forget, machine, megabytes, print_lines, weights
from safetensors.torch import load_file

from lox_kit import Checkpoint

SIZES = {
    "tiny": {"hidden": 256, "layers": 2},
    "1b": {"hidden": 2048, "layers": 22},
    "7b": {"hidden": 4096, "layers": 32, "num_key_value_heads": 32, "intermediate_size": 11008},
}
RANK = 64
LAYER = "model.layers.0."  # the one that is decomposed in full


@click.command()
@click.option("--size", type=click.Choice(list(SIZES)), default="1b")
@click.option("--folder", help="where the checkpoints go; default the system's temporary")
@click.option("--mergekit", metavar="FILE", help="mergekit-extract-lora in its own environment")
@click.option("--json", "out", type=Path, metavar="FILE", help="write the numbers here as well")
def main(size: str, folder: str | None, mergekit: str | None, out: Path | None) -> None:
    """Make the pair, measure, print."""
    with tempfile.TemporaryDirectory(prefix="lox-", dir=folder) as temporary:
        found = measure(Path(temporary), size, mergekit)
    print_table(found)
    if out:
        out.write_text(json.dumps(found, indent=1, default=vars))


def measure(folder: Path, size: str, mergekit: str | None) -> dict:
    """Return what each program took, and the floors, by name."""
    base, aligned = make_pair(folder, **SIZES[size])
    found = {
        "size": size,
        "mb": megabytes(*weights(aligned)),
        "matrices": len(Checkpoint(aligned).matrices),
    }
    found["floors"] = {
        "read the pair": read_seconds(base, aligned),
        "copy one": copy_seconds(aligned),
    }
    subspace, edited, adapter = folder / "S.safetensors", folder / "edited", folder / "adapter"
    step = (subspace, aligned, "-k", RANK, "--alpha", 1.0, "-o")
    programs = {
        "lox factor": ("lox", "factor", base, aligned, "--rank", RANK, "-o", subspace),
        "lox apply": ("lox", "apply", *step, edited),
        "lox adapter": ("lox", "adapter", *step, adapter),
    }
    if mergekit:
        pair = ("--model", aligned, "--base-model", base, "--max-rank", RANK)
        programs["mergekit"] = (mergekit, *pair, "--embed-lora", "--out-path", folder / "theirs")
    took = found["took"] = {}
    for name, (program, *arguments) in programs.items():
        forget(base, aligned)
        report, cache = folder / "took", folder / "cache"  # apply finds the hashes, as a user's
        took[name] = run(program, *arguments, report=report, cache=cache)
        shutil.rmtree(edited, ignore_errors=True)
    found |= one_layer(base, aligned, adapter, folder / "theirs" if mergekit else None)
    return found


def read_seconds(*folders: Path) -> float:
    """Return the seconds it takes to read all weights once, and do nothing else."""
    forget(*folders)
    buffer, begin = memoryview(bytearray(CHUNK)), time.perf_counter()
    for file in (f for folder in folders for f in weights(folder)):
        with file.open("rb", buffering=0) as source:
            while source.readinto(buffer):
                pass
    return time.perf_counter() - begin


def copy_seconds(folder: Path) -> float:
    """Return the seconds it takes to copy a checkpoint, until it is on the disk."""
    forget(folder)
    copy, begin = folder.with_name("copy"), time.perf_counter()
    shutil.copytree(folder, copy)
    for file in weights(copy):
        with file.open("rb") as written:
            os.fsync(written.fileno())
    seconds = time.perf_counter() - begin
    shutil.rmtree(copy)
    return seconds


def one_layer(base: Path, aligned: Path, adapter: Path, theirs: Path | None) -> dict:
    """Decompose one layer's deltas in full; return the time, and what adapters leave of them.

    The residuals are |dW - BA|^2 over the least that any matrix of that rank leaves, at most over
    the layer's matrices.
    """
    pair = Checkpoint(base), Checkpoint(aligned)
    matrices = pair[1].matrices.items()
    names = [n for n, W in matrices if n.startswith(LAYER) and min(W.shape) > RANK]
    ours, other = (
        load_file(f / "adapter_model.safetensors") if f else None for f in (adapter, theirs)
    )
    seconds, residuals = 0.0, {"lox adapter": [], "mergekit": []}
    for name in names:
        W_base, W = (checkpoint.read(name).float() for checkpoint in pair)
        begin = time.perf_counter()
        dW = W - W_base
        _, S, _ = torch.linalg.svd(dW, full_matrices=False)
        seconds += time.perf_counter() - begin
        least = float(S[RANK:].square().sum())
        for who, tensors in (("lox adapter", ours), ("mergekit", other)):
            if tensors:
                residuals[who].append(float((dW - product(tensors, name)).square().sum()) / least)
    most = {who: max(values) for who, values in residuals.items() if values}
    return {"one layer": seconds, "layers": config(aligned)["num_hidden_layers"], "residual": most}


def product(tensors: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    """Return the B A of an adapter whose scale is 1 for a weight of this name."""
    part = f"base_model.model.{name.removesuffix('.weight')}"
    A, B = (tensors[f"{part}.lora_{side}.weight"].float() for side in "AB")
    return B @ A


def config(folder: Path) -> dict:
    """Return a checkpoint's config."""
    return json.loads((folder / "config.json").read_text())


def print_table(found: dict) -> None:
    """Print each program beside its floor, the published algorithm and mergekit."""
    read, copied = found["floors"].values()
    took: dict[str, Took] = found["took"]
    print_lines(machine())
    print(f"\n{found['size']}: two of {found['mb'] / 1e3:.1f} GB, {found['matrices']} matrices")
    print(f"  read the pair once: {read:.1f} s; copy one: {copied:.1f} s\n")
    print(f"{'':14}{'time':>10}{'work':>10}{'peak':>10}  over its floor")
    floors = {"lox factor": read, "lox apply": copied}
    for name, t in took.items():
        over = f"{t.seconds / floors[name]:6.2f} x" if name in floors else ""
        print(f"{name:14}{t.seconds:8.1f} s{t.work:8.1f} s{t.peak_mb:7.0f} MB{over}")
    full = found["one layer"] * found["layers"]
    print(
        f"\npublished algorithm, decompositions alone: {found['one layer']:.1f} s for one layer, "
        f"measured, x {found['layers']} = {full:.0f} s without embedding and head: "
        f"{full / took['lox factor'].seconds:.1f} x lox factor"
    )
    for who, most in found["residual"].items():
        print(f"{who}: at most {most - 1:.2%} over the least residual of rank {RANK}, of layer 0")
    if theirs := took.get("mergekit"):
        steps = [took["lox factor"], took["lox adapter"]]
        work, peak = sum(t.work for t in steps), max(t.peak_mb for t in steps)
        print(
            f"factor and adapter against mergekit: {theirs.work / work:.1f} x less processor time, "
            f"{theirs.seconds / sum(t.seconds for t in steps):.1f} x by the clock, "
            f"{theirs.peak_mb / peak:.1f} x less memory"
        )


if __name__ == "__main__":
    main()
