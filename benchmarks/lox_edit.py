"""Time and memory of factoring and extrapolating a pair, against the published algorithm.

    python benchmarks/lox_edit.py [--hidden 2048] [--layers 16] [--folder DIR] [--json FILE]
    python benchmarks/lox_edit.py --quick

Every measured program is a fresh process with a fresh hash cache, and its files are dropped from
the page cache before: what stands in the table is what a first `lox extrapolate`, or `lox factor`
and `lox apply`, take, start and imports included.
"""

from __future__ import annotations

import argparse
import dataclasses
import filecmp
import json
import os
import platform
import shutil
import tempfile
import time
from pathlib import Path

import torch
from child import Took, run
from compare import compare
from llama_pair import SPECTRUM, llama_config, llama_shapes, make_pair

K, ALPHA = 6, 1.25  # the paper's
RANKS = {6: 20.0, 64: 8.0}  # stored rank: how many times faster it should be
ONE_CALL = 6  # the rank at which `lox extrapolate` is measured as well as the two verbs
CHUNK = 1 << 22
HERE = Path(__file__).parent


def main() -> None:
    """Make the pairs, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--folder", help="where the checkpoints go; default the system's temporary")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here as well")
    parser.add_argument("--quick", action="store_true", help="hidden size 256: a smoke check")
    options = parser.parse_args()
    hidden = 256 if options.quick else options.hidden
    with tempfile.TemporaryDirectory(prefix="lox-", dir=options.folder) as temporary:
        folder = Path(temporary)
        other = 4 if options.layers > 4 else 16
        check_room(folder, hidden, max(options.layers, other))
        numbers = {"machine": machine(), "pair": describe(hidden, options.layers)}
        print_lines(numbers["machine"] | numbers["pair"])
        numbers |= measure_speed(folder / "pair", hidden, options.layers)
        shutil.rmtree(folder / "pair")
        numbers |= measure_memory(folder / "pair", hidden, (options.layers, other), numbers)
    if options.json:
        options.json.write_text(json.dumps(numbers, indent=1, default=dataclasses.asdict))


# --- measuring --------------------------------------------------------------------------------


def measure_speed(folder: Path, hidden: int, layers: int) -> dict:
    """Measure the floor, `lox` at both ranks and the plain algorithm on one pair, and print."""
    base, aligned = make_pair(folder, hidden, layers)
    floor = min(disk_floor(base, aligned) for _ in range(2))
    numbers = {"floor": floor, "start": start(folder)}
    for rank in RANKS:
        numbers[f"rank {rank}"] = lox(folder, base, aligned, rank)
    numbers["one call"] = one_call(folder, base, aligned)
    forget(base, aligned)
    kept = folder / "factors.safetensors"
    plain = HERE / "plain_lox.py"
    arguments = (base, aligned, folder / "plain", K, ALPHA, kept)
    numbers["plain"] = run(str(plain), *arguments, report=folder / "took", cache=folder / "none")
    for rank in RANKS:
        ours, subspace = folder / f"edited-{rank}", folder / f"S-{rank}.safetensors"
        numbers[f"agreement {rank}"] = compare(ours, subspace, folder / "plain", kept, K)
    same(folder / f"edited-{ONE_CALL}", folder / "edited")
    numbers["bytes"] = bytes_moved(folder, base, aligned)
    print_speed(numbers)
    return numbers


def measure_memory(folder: Path, hidden: int, layers: tuple[int, int], numbers: dict) -> dict:
    """Measure `lox` at the default rank on a pair of another depth, and print both peaks."""
    base, aligned = make_pair(folder, hidden, layers[1])
    peaks = {layers[0]: numbers["rank 64"], layers[1]: lox(folder, base, aligned, 64)}
    largest = max(torch.Size(s).numel() for s in llama_shapes(llama_config(hidden, 1)).values())
    limit = 1000 + 6 * 4e-6 * largest
    print(f"\nPeak memory (limit 1 GB + 6 x the largest matrix in float32 = {limit:.0f} MB)")
    for depth, steps in peaks.items():
        line = "".join(f"  {step} {took.peak_mb:5.0f} MB" for step, took in steps.items())
        print(f"  --rank 64, {depth:2} layers{line}")
    return {"limit_mb": limit, "peaks": peaks}


def lox(folder: Path, base: Path, aligned: Path, rank: int) -> dict[str, Took]:
    """Factor and apply on the command line, from files that are not in the page cache."""
    subspace, out = folder / f"S-{rank}.safetensors", folder / f"edited-{rank}"
    steps = {
        "factor": ("factor", base, aligned, "-o", subspace, "--rank", rank),
        "apply": ("apply", subspace, aligned, "-o", out, "-k", K, "--alpha", ALPHA),
    }
    took = {}
    for step, arguments in steps.items():
        forget(base, aligned)
        cache = folder / f"cache-{rank}"  # new with `factor`; `apply` finds its hashes, as a user's
        took[step] = run("lox", *arguments, report=folder / "took", cache=cache)
    return took


def one_call(folder: Path, base: Path, aligned: Path) -> Took:
    """Factor and apply by one command, which keeps the factors too."""
    forget(base, aligned)
    subspace, out = folder / "S.safetensors", folder / "edited"
    arguments = ("-o", out, "-k", K, "--alpha", ALPHA, "--rank", ONE_CALL, "--factors", subspace)
    report, cache = folder / "took", folder / "cache"
    return run("lox", "extrapolate", base, aligned, *arguments, report=report, cache=cache)


def same(first: Path, second: Path) -> None:
    """Make sure that one command and two have written the same bytes."""
    for file in weights(first):
        if not filecmp.cmp(file, second / file.name, shallow=False):
            raise RuntimeError(f"{file.name} of {first} and {second} differ.")


def start(folder: Path) -> Took:
    """Measure a program that imports what `lox factor` imports and does nothing."""
    script = folder / "start.py"
    script.write_text(
        "import lox_kit.cli.main, lox_kit.models.load, lox_kit.cli.progress\n"
        "import lox_kit.extrapolation.checkpoint\n"
    )
    run(str(script), report=folder / "took", cache=folder / "none")  # from the disk once
    return run(str(script), report=folder / "took", cache=folder / "none")


def disk_floor(base: Path, aligned: Path) -> float:
    """Return the seconds it takes to read both checkpoints and write one, and do nothing else."""
    forget(base, aligned)
    buffer = memoryview(bytearray(CHUNK))
    begin = time.perf_counter()
    for file in weights(base):
        with file.open("rb", buffering=0) as source:
            while source.readinto(buffer):
                pass
    for file in weights(aligned):
        copy = file.with_suffix(".copy")
        with file.open("rb", buffering=0) as source, copy.open("wb", buffering=0) as target:
            while n := source.readinto(buffer):
                target.write(buffer[:n])
            os.fsync(target.fileno())
        copy.unlink()
    return time.perf_counter() - begin


def bytes_moved(folder: Path, base: Path, aligned: Path) -> dict[str, float]:
    """Return MB read and written by factor and apply at the default rank, from the files' sizes."""
    pair = megabytes(*weights(base), *weights(aligned))
    subspace = megabytes(folder / "S-64.safetensors")
    return {
        "factor reads to hash": pair,
        "factor reads to factor": pair,
        "factor writes": subspace,
        "apply reads": megabytes(*weights(aligned)) + subspace,
        "apply writes": megabytes(*weights(folder / "edited-64")),
    }


def forget(*folders: Path) -> None:
    """Drop the weights from the page cache, where the system can."""
    if not hasattr(os, "posix_fadvise"):
        return
    for file in (f for folder in folders for f in weights(folder)):
        with file.open("rb") as f:
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def weights(folder: Path) -> list[Path]:
    """Return a checkpoint's weight files."""
    return sorted(folder.glob("*.safetensors"))


def megabytes(*files: Path) -> float:
    """Return the size of files."""
    return sum(f.stat().st_size for f in files) / 1e6


def check_room(folder: Path, hidden: int, layers: int) -> None:
    """Raise OSError if the checkpoints do not fit on the disk."""
    shapes = llama_shapes(llama_config(hidden, layers))
    needed = 3.2 * sum(2 * torch.Size(s).numel() for s in shapes.values())  # a pair and its edit
    if needed > (free := shutil.disk_usage(folder).free):
        raise OSError(f"{folder} has {free / 1e9:.1f} GB free; this needs {needed / 1e9:.1f} GB.")


# --- printing ---------------------------------------------------------------------------------


def machine() -> dict[str, str]:
    """Return what this was measured on."""
    model = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        lines = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        model = lines[0].partition(": ")[2] if lines else model
    threads = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    return {"machine": f"{model}, {threads}, {platform.system()}", "versions": versions}


def describe(hidden: int, layers: int) -> dict[str, str]:
    """Say what the pair is."""
    shapes = llama_shapes(llama_config(hidden, layers))
    matrices = [s for s in shapes.values() if len(s) == 2]
    size = sum(torch.Size(s).numel() for s in shapes.values())
    return {
        "pair": f"Llama-shaped, hidden {hidden}, {layers} layers, {len(matrices)} matrices up to "
        f"{max(matrices)}, {size / 1e6:.0f} M weights, {2e-6 * size:.0f} MB in bfloat16 each",
        "delta": SPECTRUM,
        "edit": f"k = {K}, alpha = {ALPHA}",
    }


def print_speed(numbers: dict) -> None:
    """Print the table of times, the agreement with the plain algorithm and the bytes moved."""
    plain, floor, start = numbers["plain"], numbers["floor"], numbers["start"].seconds
    print(f"\n{'':26}{'factor':>9}{'apply':>9}{'total':>9}{'faster':>9}{'floor':>9}{'peak':>10}")
    width = f"{plain.seconds:27.1f} s{'1 x':>9}{plain.seconds / floor:7.0f} x"
    print(f"{'published algorithm, plain':26}{width}{plain.peak_mb:7.0f} MB")
    ways = [("extrapolate", ONE_CALL, [numbers["one call"]])]
    ways += [("factor, apply", r, [*numbers[f"rank {r}"].values()]) for r in RANKS]
    for way, rank, steps in ways:
        total = sum(took.seconds for took in steps)
        each = [f"{took.seconds:7.1f} s" for took in steps] if len(steps) == 2 else [" " * 9] * 2
        ratios = f"{total:7.1f} s{plain.seconds / total:7.1f} x{total / floor:7.1f} x"
        peak = f"{max(took.peak_mb for took in steps):7.0f} MB"
        bare = (plain.seconds - start) / (total - len(steps) * start)
        more = f"   wanted {RANKS[rank]:g} x; {bare:.1f} x without start and imports"
        print(f"{f'{way} --rank {rank}':26}{''.join(each)}{ratios}{peak}{more}")
    print(f"{'reading and copying only':26}{floor:27.1f} s{'':9}{'1 x':>9}")
    print(f"{'start and imports':26}{start:27.1f} s, once in each program above")
    print("\nAgreement with the plain algorithm")
    for rank in RANKS:
        a = numbers[f"agreement {rank}"]
        print(
            f"  rank {rank:2}: top-{K} part within {a.part_error:.1e}; of {a.values / 1e6:.0f} M "
            f"weights {a.other} differ, {a.beyond_ulp} by more than one ulp; "
            f"{a.krylov} matrices by iteration"
        )
    print("\nBytes moved at --rank 64, from the files' sizes")
    print_lines({name: f"{size:.0f} MB" for name, size in numbers["bytes"].items()})
    written = {step: took.written_mb for step, took in numbers["rank 64"].items()}
    print(f"  the kernel counts {written['factor']:.0f} and {written['apply']:.0f} MB written")


def print_lines(facts: dict[str, str]) -> None:
    """Print facts, one a line."""
    for name, value in facts.items():
        print(f"  {name:24}{value}")


if __name__ == "__main__":
    main()
