"""Golden numbers: what seed 0 of the sandbox and a fixed tiny pair gave when they were recorded.

    python benchmarks/golden.py [PART ...]             measure, and say what differs from the record
    python benchmarks/golden.py --record [PART ...]    write the record anew

A change to the code that is not meant to change results must leave every number as it is: counts
equal, floats to 1e-4, edited weights bit for bit. What is meant to change them records them anew
and says why. Arithmetic runs on one thread of the processor, with the instructions that x86-64 ones
with AVX2 share, so that the numbers are of the code and not of the machine.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["ATEN_CPU_CAPABILITY"] = "avx2"  # torch's kernels; read when it is imported
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["MKL_CBWR"] = "COMPATIBLE"  # matrix products and decompositions: the same everywhere

import argparse
import dataclasses
import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from mpl_toolkits.mplot3d.art3d import Poly3DCollection
from safetensors.torch import load_file, save_file

from lox_kit import (
    LoxDial,
    SafetySubspace,
    Store,
    apply_lox,
    attack_table,
    epoch_curve,
    find_attack,
    load_model,
    measure_asr,
    run_attack,
    world_rank_curve,
)
from lox_kit.extrapolation import explorer_data
from lox_kit.figures import DRAW, STYLE, interval_data, judges_data, rank_and_r_data
from lox_kit.measures import world_questions
from lox_kit.reports import DIFFERENCE, numbers
from lox_kit.studies import WALKS, alpha_curve, load_family, plan_route, walks

ROOT = Path(__file__).parents[1]
RECORD = Path(__file__).with_suffix(".json")
TOLERANCE = 1e-4  # of floats: absolute below 1, relative above
PAIR = ("sandbox/base", "sandbox/aligned")
ATTACKS = ("arithmetic", "context", "mixed", "persona", "forbidden")
RANKS = (0, 1, 2, 3, 4, 6, 8, 16, 32)
K = 6
LAYERS = (
    "model.embed_tokens.weight",
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.1.mlp.gate_proj.weight",
    "model.layers.3.mlp.down_proj.weight",
    "lm_head.weight",
)


def main() -> None:
    """Measure the parts that are named and compare them with the record, or record them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--record", action="store_true", help="write what is measured")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"{', '.join(unknown)}: use {', '.join(PARTS)}")
    recorded = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    with tempfile.TemporaryDirectory() as folder, Store(folder) as store:
        found = {part: PARTS[part](store) for part in options.parts or PARTS}
    if options.record:
        RECORD.write_text(as_text(recorded | found))
        return
    wrong = [line for part in found for line in differences(recorded[part], found[part], part)]
    print(*(wrong or [f"as recorded: {', '.join(found)}"]), sep="\n")
    sys.exit(bool(wrong))


def as_text(recorded: dict[str, dict]) -> str:
    """Return the record as JSON, one line to what a part measured."""
    parts = [
        f"{json.dumps(part)}: {{\n"
        + ",\n".join(f" {json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(found.items()))
        + "\n}"
        for part, found in sorted(recorded.items())
    ]
    return "{" + ",\n".join(parts) + "}\n"


def differences(recorded, found, where: str) -> Iterator[str]:
    """Yield a line for everything that is not as recorded: equal, or floats within `TOLERANCE`."""
    if isinstance(recorded, dict) and isinstance(found, dict):
        for key in sorted(recorded.keys() | found.keys()):
            yield from differences(recorded.get(key), found.get(key), f"{where}: {key}")
    elif isinstance(recorded, list) and isinstance(found, list) and len(recorded) == len(found):
        for i, (old, new) in enumerate(zip(recorded, found, strict=True)):
            yield from differences(old, new, f"{where}[{i}]")
    elif isinstance(recorded, float) and isinstance(found, float):
        if not abs(found - recorded) <= TOLERANCE * max(1.0, abs(recorded)):
            yield f"{where}: {found}, recorded {recorded}"
    elif recorded != found or type(recorded) is not type(found):
        yield f"{where}: {found}, recorded {recorded}"


# --- the parts ----------------------------------------------------------------------------------


def edit(_: Store) -> dict:
    """Hash the weights that LoX writes for a tiny pair, in float32 and in bfloat16."""
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        with tempfile.TemporaryDirectory() as folder:
            base, aligned = _tiny_pair(Path(folder), dtype)
            subspace = SafetySubspace.from_pair(base, aligned, rank=4, device="cpu")
            out = Path(folder) / "lox"
            apply_lox(subspace, aligned, out, k=3, alpha=1.25)
            weights = load_file(out / "model.safetensors")
        digest = hashlib.sha256()
        for name in sorted(weights):
            digest.update(name.encode())
            digest.update(weights[name].contiguous().view(torch.uint8).numpy().tobytes())
        found[str(dtype)] = digest.hexdigest()
    return found


def _tiny_pair(folder: Path, dtype: torch.dtype) -> list[Path]:
    """Write a base, and base + a delta of rank 3 + noise, of four matrices and a vector."""
    rng = np.random.default_rng(0)
    shapes = {"a.weight": (48, 32), "b.weight": (32, 48), "c.weight": (40, 40), "d.weight": (9, 3)}
    tensors = {n: rng.standard_normal(s) for n, s in shapes.items()}
    tensors["norm.weight"] = rng.standard_normal(32)
    moved = {}
    for name, W in tensors.items():
        moved[name] = W + 1e-3 * rng.standard_normal(W.shape)
        if W.ndim == 2:
            U, V = (rng.standard_normal((n, 3)) for n in W.shape)
            moved[name] += 0.1 * U @ V.T
    folders = [folder / "base", folder / "aligned"]
    for place, values in zip(folders, (tensors, moved), strict=True):
        place.mkdir()
        save_file({n: torch.tensor(W).to(dtype) for n, W in values.items()},
                  place / "model.safetensors")  # fmt: skip
    return folders


def spectrum(_: Store) -> dict:
    """Return the singular values of five matrices, and the energy and R_align of all at k = 6."""
    subspace = SafetySubspace.from_pair(*PAIR, rank="full", device="cpu")
    return {
        "values": {name: _floats(subspace.spectrum(name)) for name in LAYERS},
        "energy": _floats(subspace.energy(K)),
        "r_align": _floats(subspace.r_align(K)),
    }


def figures(_: Store) -> dict:
    """Return what is drawn of every committed figure's data, and of two that need no model."""
    subspace = SafetySubspace.from_pair(*PAIR, rank="full", device="cpu")
    made = {f.stem: json.loads(f.read_text()) for f in sorted(ROOT.glob("figures/*.json"))}
    made |= {"explorer": explorer_data(subspace, K), "interval": interval_data()}
    return {name: _drawn(data) for name, data in made.items()}


def panels(store: Store) -> dict:
    """Return what is drawn of what a panel or a notebook measures, asked few questions."""
    subspace = SafetySubspace.from_pair(*PAIR, rank="full", device="cpu")
    model, attack = load_model(PAIR[1], device="cpu"), find_attack("mixed")
    questions = world_questions("sandbox", "dev", limit=24)
    dial = LoxDial(model, subspace)
    run = run_attack(model, attack, store=store)
    route = plan_route(model, attack, questions, points=4, task_prompts_per_point=24)
    lab = {"attack": "mixed", "training": "full", "learning_rate": 4e-4, "steps": route.total}
    lab |= {"seed": 0, "k": K, "alpha": 1.0}
    curve = world_rank_curve((0,), ranks=(0, 2, K), split="dev", limit=24, store=store)
    r_ft = {"mixed": subspace.r_ft_curve(PAIR[0], run.folder, K)}
    made = [
        alpha_curve(model, dial, K, [0, 1, 3], questions, store=store),
        judges_data(measure_asr(run.load(), questions.forbidden, ["rule", "keyword", "target"])),
        epoch_curve([model], attack, questions, learning_rates=[2e-4], every=20, store=store),
        rank_and_r_data(subspace, curve, r_ft, k=K),
        {"figure": "attack_lab", "at": 2,
         "runs": [lab | {"arms": {"aligned": route.train(store).to_dict()}}]},
    ]  # fmt: skip
    return {data["figure"]: _drawn(data) for data in made}


def _drawn(data: dict) -> list[dict]:
    """Draw a figure; return the words of each axes, and its lines and meshes in a few numbers."""
    with plt.style.context(STYLE):
        fig = DRAW[data["figure"]](data)
    plt.close(fig)
    return [
        {
            "words": [ax.get_title(), ax.get_xlabel(), ax.get_ylabel()],
            "lines": [_summary(np.ma.filled(line.get_xydata(), np.nan)) for line in ax.lines],
            "meshes": [_summary(_mesh(c)) for c in [*ax.collections, *ax.images]],
            "patches": [_summary(patch.get_path().vertices) for patch in ax.patches],
            "texts": [text.get_text() for text in ax.texts],
        }
        for ax in fig.axes
    ]


def _mesh(drawn) -> np.ndarray:
    """Return the numbers of a mesh or an image; of bars, bands, dots and a surface the corners."""
    if isinstance(drawn, Poly3DCollection):
        return surface_corners(drawn)
    if (values := drawn.get_array()) is not None:
        return np.ma.filled(np.ma.asarray(values, float), np.nan)
    corners = [path.vertices for path in drawn.get_paths()]
    return np.concatenate([np.ma.filled(drawn.get_offsets(), np.nan), *corners])


def surface_corners(surface: Poly3DCollection) -> np.ndarray:
    """Return the corners of a surface before they are projected, shape (n, 3)."""
    if hasattr(surface, "_vec"):  # matplotlib before 3.11
        return np.asarray(surface._vec[:3].T, float)
    return np.ma.filled(np.concatenate([*surface._faces]), np.nan)[:, :3]


def _summary(values: np.ndarray) -> list:
    """Return shape, mean, standard deviation, least and largest of an artist's finite numbers."""
    finite = values[np.isfinite(values)]
    numbers = [f(finite) for f in (np.mean, np.std, np.min, np.max)] if finite.size else []
    return [list(values.shape), *_floats(numbers)]


def attacks(store: Store) -> dict:
    """Return the counts of aligned and LoX before and after every attack of every parameter."""
    table = attack_table(("aligned", "LoX"), ATTACKS, (0,), lora=(), k=K, store=store)
    return {
        f"{row['arm']}, {row['attack'] or 'before'}": {
            measure: [share["count"], share["n"]] for measure, share in row["measures"].items()
        }
        for row in table.rows
    }


def rank(store: Store) -> dict:
    """Return the counts of the rank curve, and the safety rank."""
    curve = world_rank_curve((0,), ranks=RANKS, store=store)
    counts = {
        "aligned" if row["r"] is None else f"r = {row['r']}": {
            measure: [share["count"], share["n"]] for measure, share in row["measures"].items()
        }
        for row in curve.rows
    }
    return {"counts": counts, "safety rank": curve.safety_rank(curve.pairs[0])}


def cliffs(store: Store) -> dict:
    """Return how far the cliff is along each kind of line, VISAGE, and R_ft after the attack."""
    family = load_family(0, K, 1.0)
    WALKS["sandbox"] = dataclasses.replace(WALKS["sandbox"], n_random=2)
    scans = walks(family, ["arithmetic"], limit=48, store=store)
    rows = numbers(scans, "arithmetic")
    run = run_attack(load_model(PAIR[1]), find_attack("arithmetic"), store=store)
    subspace = SafetySubspace.from_pair(*PAIR, rank=K, device="cpu")
    return {
        "cliffs": {
            kind: {model: row[model].to_dict() for model in row if model != DIFFERENCE}
            for kind, row in rows.items()
        },
        "r_ft": _floats(subspace.r_ft_curve(PAIR[0], run.folder, K)[:, K]),
    }


def _floats(values) -> list[float]:
    """Return numbers to six digits."""
    return [float(f"{float(x):.6g}") for x in values]


PARTS: dict[str, Callable[[Store], dict]] = {
    "edit": edit,
    "spectrum": spectrum,
    "figures": figures,
    "panels": panels,
    "attacks": attacks,
    "rank": rank,
    "cliffs": cliffs,
}

if __name__ == "__main__":
    main()
