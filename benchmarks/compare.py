"""Compare our edit with the published algorithm's: the top-k parts, and the written weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from lox_kit.extrapolation import SafetySubspace
from lox_kit.weights import Checkpoint


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How far our edited checkpoint is from the plain one."""

    part_error: float  # largest |U S Vh - U' S' Vh'|_F / |U' S' Vh'|_F of any matrix
    values: int  # weights compared
    other: int  # of them: not bit for bit the same
    beyond_ulp: int  # of them: more than one unit in the last place of bfloat16 apart
    krylov: int  # matrices that the iteration certified; the others were decomposed exactly


def compare(ours: Path, subspace: Path, plain: Path, factors: Path, k: int) -> Agreement:
    """Compare two edited checkpoints and the top-k factors they were made with."""
    first, second, found = Checkpoint(ours), Checkpoint(plain), SafetySubspace.load(subspace)
    errors, values, other, beyond = [], 0, 0, 0
    for name in first.tensors:
        apart = _ulps(first.read(name), second.read(name))
        values += apart.numel()
        other += int((apart > 0).sum())
        beyond += int((apart > 1).sum())
        if name in found:
            errors.append(_part_error(found[name].top(k), _plain_factors(factors, name)))
    krylov = sum(found[name].method == "krylov" for name in found)
    return Agreement(max(errors), values, other, beyond, krylov)


def _plain_factors(file: Path, name: str) -> list[Tensor]:
    """Return U, S, Vh that the plain algorithm kept of one matrix."""
    with safe_open(file, "pt") as f:
        return [f.get_tensor(f"{name}.{part}") for part in ("U", "S", "Vh")]


def _part_error(ours: tuple[Tensor, ...], plain: list[Tensor]) -> float:
    """Return the relative distance of two products U S Vh, in the Frobenius norm."""
    (U, S, Vh), (U_plain, S_plain, Vh_plain) = ours, plain
    apart = torch.addmm((U_plain * S_plain) @ Vh_plain, U * S, Vh, beta=-1)
    return float(torch.linalg.vector_norm(apart) / torch.linalg.vector_norm(S_plain))


def _ulps(a: Tensor, b: Tensor) -> Tensor:
    """Return how many bfloat16 numbers two tensors are apart, value by value."""
    return (_ordered(a) - _ordered(b)).abs_()


def _ordered(x: Tensor) -> Tensor:
    """Return the bit patterns as integers that are ordered as the numbers are."""
    bits = x.view(torch.int16).to(torch.int32)
    return torch.where(bits < 0, -(bits & 0x7FFF), bits)
