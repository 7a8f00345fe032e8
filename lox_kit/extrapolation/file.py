"""The file of a safety subspace: its layout, written layer by layer, read piece by piece.

One safetensors file, all float32. Of each matrix NAME: `NAME.U` (out, r), `NAME.S` (r,), `NAME.Vh`
(r, in), `NAME.residual` (r,), `NAME.info` (|dW|_F, number of the method), and perhaps
`NAME.spectrum`. Where it comes from is JSON in the header, under `lox_kit`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lox_kit.weights import SafetensorsStream

from .svd import METHODS, Factors

FULL = "full"
PARTS = ("U", "S", "Vh", "residual", "info")


def has_spectrum(info: dict) -> bool:
    """Whether all singular values are stored beside the factors."""
    return info["spectrum"] == FULL and info["rank"] != FULL


def open_stream(file: str | Path, info: dict) -> SafetensorsStream:
    """Open the stream that writes a subspace file; a partial one keeps its whole layers."""
    layout = {}
    for name, (out, into) in zip(info["layers"], info["shapes"], strict=True):
        smaller = min(out, into)
        r = smaller if info["rank"] == FULL else min(info["rank"], smaller)
        shapes = {"U": (out, r), "S": (r,), "Vh": (r, into), "residual": (r,), "info": (2,)}
        if has_spectrum(info):
            shapes["spectrum"] = (smaller,)
        layout |= {f"{name}.{part}": (torch.float32, shape) for part, shape in shapes.items()}
    group = len(layout) // len(info["layers"])
    return SafetensorsStream(file, layout, {"lox_kit": json.dumps(info)}, group=group)


def missing_layers(stream: SafetensorsStream) -> list[str]:
    """Return the names of the layers still to be written."""
    return list(dict.fromkeys(part.rpartition(".")[0] for part in stream.missing))


def write_layer(stream: SafetensorsStream, name: str, factors: Factors) -> None:
    """Append one matrix's tensors."""
    facts = torch.tensor([factors.norm, METHODS.index(factors.method)], dtype=torch.float32)
    parts: dict[str, Tensor | None] = {p: getattr(factors, p) for p in PARTS[:-1]}
    parts |= {"info": facts, "spectrum": factors.spectrum}
    for part, tensor in parts.items():
        if tensor is not None:
            stream.write(f"{name}.{part}", tensor)


def read_info(file: Path) -> dict:
    """Return where a subspace file comes from.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, or it is no whole subspace file.
    """
    if not file.exists():
        raise FileNotFoundError(f"{file}: no such file. `lox factor BASE ALIGNED -o` makes it.")
    if file.is_dir():
        raise FileExistsError(f"{file} is a folder; a subspace is one file: name that.")
    try:
        with safe_open(file, "pt") as f:
            info = json.loads((f.metadata() or {}).get("lox_kit", "null"))
    except SafetensorError as error:
        raise ValueError(f"{file}: not a whole safetensors file ({error}).") from error
    if not info or "layers" not in info:
        raise ValueError(f"{file}: not a subspace file; `lox factor` makes those.")
    return info


def read_factors(file: Path, info: dict, name: str) -> Factors:
    """Return the factors of one matrix."""
    names = [*PARTS[:-1], "spectrum"] if has_spectrum(info) else PARTS[:-1]
    with safe_open(file, "pt") as f:
        norm, method = f.get_tensor(f"{name}.info").tolist()
        parts = {part: f.get_tensor(f"{name}.{part}") for part in names}
    return Factors(**parts, norm=norm, method=METHODS[int(method)])


def read_values(file: Path, info: dict) -> Iterator[tuple[str, np.ndarray, np.ndarray, float, str]]:
    """Yield name, S, residual, |dW|_F and method of every matrix: the small part of the file."""
    with safe_open(file, "pt") as f:
        for name in info["layers"]:
            S, residual, facts = (
                f.get_tensor(f"{name}.{part}").numpy() for part in ("S", "residual", "info")
            )
            yield name, S, residual, float(facts[0]), METHODS[int(facts[1])]
