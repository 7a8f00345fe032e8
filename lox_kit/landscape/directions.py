"""Directions in weight space: what is added to a model, tensor by tensor, low-rank or dense.

A direction's parts are computed when they are needed, so that two checkpoints are never in memory
at once; `hold` keeps them. Dot products accumulate in float64, tensor by tensor.
"""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections import UserDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from lox_kit.extrapolation import (
    LowRank,
    Part,
    SafetySubspace,
    check_alpha,
    recipe_of,
    rows_of,
)
from lox_kit.models import Model
from lox_kit.store import content_key
from lox_kit.weights import (
    ROWS,
    Checkpoint,
    is_beside,
    same_tensors,
    saved_places,
    values_of,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Direction:
    """One direction over named weights."""

    parts: Mapping[str, Part]
    key: str  # hash of what determines it
    name: str  # for people

    def hold(self, weights: Weights | None = None) -> Direction:
        """Return the direction with its parts in memory, those that are zero left out.

        Dense parts are kept in the dtype of `weights`, if given, so that they take no more memory
        than the model. In half precision that rounds each change to 8 (bfloat16) or 11 bits: the
        other checkpoint is reached exactly wherever a weight changed by less than half its size.
        """
        held = {}
        for name, part in self.parts.items():
            if isinstance(part, Tensor) and weights is not None:
                part = part.to(weights.tensors[name].dtype)
            if bool((part.left if isinstance(part, LowRank) else part).any()):
                held[name] = part
        return dataclasses.replace(self, parts=held)

    def to(self, device: str | torch.device) -> Direction:
        """Return the direction with its parts on a device."""
        moved = {name: _on(part, device) for name, part in self.parts.items()}
        return dataclasses.replace(self, parts=moved)


def _on(part: Part, device: str | torch.device) -> Part:
    """Return a part on a device."""
    return LowRank(*(t.to(device) for t in part)) if isinstance(part, LowRank) else part.to(device)


class _Computed(UserDict):
    """Parts by name, each computed whenever it is asked for."""

    def __init__(self, names: Iterable[str], compute: Callable[[str], Part]):
        super().__init__(dict.fromkeys(names, compute))

    def __getitem__(self, name: str) -> Part:
        return self.data[name](name)


# --- what a model's weights are ---------------------------------------------------------------


class Weights:
    """The floating-point weights of a model in memory or of a checkpoint, read one at a time.

    They have the names by which the architecture is published, however a checkpoint names them.

    Attributes
    ----------
    tensors : dict of name to an object with `shape` and `dtype`
        A tied head is left out: it is the embedding. Experts are one by one.
    key, name : str
        As a `Model` has them; of a checkpoint, its fingerprint and its name.
    """

    def __init__(self, model: Model | str | Path):
        if isinstance(model, Model):
            self._module = model.module
            weights, places = model.module.state_dict(), saved_places(model.module)
            found: Mapping = {n: values_of(place, weights) for n, place in places.items()}
            self.read = lambda name: found[name]
            self.key, self.name = model.key, model.name
        else:
            checkpoint = Checkpoint(model)
            self._module = checkpoint.skeleton if checkpoint.is_known else None
            found = checkpoint.parts
            if self._module is not None:
                checkpoint = checkpoint.like(own := saved_places(self._module))
                parts = checkpoint.parts.items()
                found = {n: p for n, p in parts if n in own or not is_beside(self._module, n)}
            self.read = checkpoint.read_part
            self.key, self.name = checkpoint.fingerprint, checkpoint.name
        self.tensors = {n: t for n, t in found.items() if t.dtype.is_floating_point}

    def naming(self, direction: Direction) -> Direction:
        """Return a direction by the names that these weights have."""
        if self._module is None or self.tensors.keys() >= direction.parts.keys():
            return direction
        names = same_tensors(self._module, direction.parts, self.tensors)
        given = {names[name]: name for name in direction.parts}
        parts = _Computed(given, lambda name: direction.parts[given[name]])
        return dataclasses.replace(direction, parts=parts)


Source = Model | str | Path | Weights  # where weights come from


def weights_of(model: Source) -> Weights:
    """Return the weights of a model, checkpoint folder or sandbox name."""
    return model if isinstance(model, Weights) else Weights(model)


def check_shape(weights: Weights, tensor: str, shape: Sequence[int], whose: str) -> None:
    """Raise ValueError unless the weights have this tensor, in the shape that it has in `whose`."""
    found = weights.tensors.get(tensor)
    if found is None or tuple(found.shape) != tuple(shape):
        raise ValueError(
            f"{tensor}: {whose} has shape {tuple(shape)}, {weights.name} has "
            f"{'no such tensor' if found is None else tuple(found.shape)}: two architectures."
        )


def check_shapes(one: Weights, other: Weights) -> None:
    """Raise ValueError unless two models have the same weights, in the same shapes."""
    for first, second in ((one, other), (other, one)):
        for name, tensor in first.tensors.items():
            check_shape(second, name, tensor.shape, first.name)


# --- making directions ------------------------------------------------------------------------


def between(start: Source, end: Source) -> Direction:
    """Return `end - start` over all their weights, dense, in float32 or wider.

    Raises
    ------
    ValueError
        If the two do not have the same weights.
    """
    start, end = weights_of(start), weights_of(end)
    check_shapes(start, end)

    def difference(name: str) -> Tensor:
        return minus(end.read(name), start.read(name))

    key = content_key(start=start.key, end=end.key)
    return Direction(_Computed(start.tensors, difference), key, f"{end.name} - {start.name}")


def combine(terms: Sequence[tuple[float, Direction]], name: str) -> Direction:
    """Return a weighted sum of directions; factors stay factors where all of them are."""
    names = dict.fromkeys(n for _, d in terms for n in d.parts)

    def total(tensor: str) -> Part:
        parts = [(c, d.parts[tensor]) for c, d in terms if tensor in d.parts]
        if all(isinstance(p, LowRank) for _, p in parts):
            left = torch.cat([c * p.left for c, p in parts], dim=1)
            return LowRank(left, torch.cat([p.right for _, p in parts]))
        dense = [(c, p.dense() if isinstance(p, LowRank) else p) for c, p in parts]
        device = dense[0][1].device  # factors may lie elsewhere than a model
        return sum(c * _wide(p.to(device)) for c, p in dense)

    key = content_key(terms=[[c, d.key] for c, d in terms])
    return Direction(_Computed(names, total), key, name)


def lox_direction(subspace: SafetySubspace, k: int | None, alpha: float = 1.0) -> Direction:
    """Return `alpha U_k S_k Vh_k` as factors: from the aligned model to its LoX.

    Raises
    ------
    ValueError
        If alpha is negative or zero, or `k` is zero or not stored.
    """
    check_alpha(alpha)
    subspace.check_rank(k)
    if k == 0 or alpha == 0:
        raise ValueError(f"k={k}, alpha={alpha}: this LoX does not move, so it has no direction.")
    parts = {}
    for name in subspace:
        U, S, Vh = subspace[name].top(k)
        if bool((S > 0).any()):
            parts[name] = LowRank(U * (alpha * S), Vh)
    return Direction(parts, content_key(lox=recipe_of(subspace.info, k, alpha)), "LoX")


def random_direction(model: Source, seed: int) -> Direction:
    """Return a Gaussian direction over every 2-D weight, each as long as the model's.

    One-dimensional weights stay. Layer-normalised, as in Peng et al. 2024 (arXiv:2405.17374).
    """
    weights = weights_of(model)

    def draw(name: str) -> Tensor:
        W = weights.read(name)
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
        d = torch.randn(tuple(W.shape), generator=generator).to(W.device)
        return d * (torch.linalg.matrix_norm(_wide(W)) / torch.linalg.matrix_norm(d))

    names = [n for n, t in weights.tensors.items() if len(t.shape) == 2]
    causes = {"random": seed, "normalise": "layer", "torch": torch.__version__}
    key = content_key(origin=weights.key, **causes)
    return Direction(_Computed(names, draw), key, f"random {seed}")


# --- lengths and angles -----------------------------------------------------------------------


def dot(first: Direction, second: Direction) -> float:
    """Return the inner product over all weights, in float64."""
    shared = [n for n in first.parts if n in second.parts]
    return math.fsum(_part_dot(first.parts[n], second.parts[n]) for n in shared)


def norm(direction: Direction) -> float:
    """Return the L2 norm over all weights, in float64."""
    return math.sqrt(math.fsum(_part_dot(p, p) for p in direction.parts.values()))


def products(name: str, part: Part, axes: Sequence[Direction]) -> list[float]:
    """Return the inner products of one tensor's part with some directions, and with itself."""
    along = [_part_dot(part, d.parts[name]) if name in d.parts else 0.0 for d in axes]
    return [*along, _part_dot(part, part)]


def _part_dot(p: Part, q: Part) -> float:
    """Return the inner product of two deltas of one tensor, in float64, factors as factors.

    A few rows are converted at a time: a whole embedding in float64 would need gigabytes. Of two
    devices it is the dense part's, or the first one's.
    """
    if isinstance(p, LowRank) and isinstance(q, LowRank):
        q = _on(q, p.left.device)
        inner = p.left.double().T @ q.left.double()
        return float((inner * (p.right.double() @ q.right.double().T)).sum())
    if isinstance(p, LowRank):
        p, q = q, p
    sums = []
    for start in range(0, len(p), ROWS):
        rows = slice(start, start + ROWS)
        one, other = p[rows].double(), _on(rows_of(q, rows), p.device)
        if isinstance(other, LowRank):
            one, other = other.left.double().T @ one, other.right  # <p, L R> = <L^T p, R>
        sums.append(float(torch.dot(one.flatten(), other.double().flatten())))
    return math.fsum(sums)


def minus(second: Tensor, first: Tensor) -> Tensor:
    """Return `second - first` in float32 or wider, on the device of the second."""
    return _wide(second) - _wide(first.to(second.device))


def _wide(tensor: Tensor) -> Tensor:
    """Return the tensor in float32, or float64 if it was."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
