"""Two checkpoints of one architecture: can one be subtracted from the other, and the deltas."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from .architecture import is_embedding, is_head
from .checkpoint import Checkpoint

ROWS = 128  # of a matrix that are converted at a time: they stay in the processor's cache


@dataclasses.dataclass(frozen=True)
class PairReport:
    """What `check_pair` found: the matrices to factor, and what may surprise."""

    matrices: tuple[str, ...]
    tied: str | None
    notes: tuple[str, ...]
    largest_mb: float  # the largest matrix in float32, in MB
    total_mb: float  # all bytes of the aligned checkpoint, in MB


def check_pair(
    base: Checkpoint,
    aligned: Checkpoint,
    *,
    include: str | None = None,
    exclude: str | None = None,
    read_all: bool = True,
) -> PairReport:
    """Compare two checkpoints by their headers and content hash, and look for NaN in every tensor.

    Parameters
    ----------
    read_all : bool
        False reads vectors only, for a caller that reads the matrices anyway.
    include, exclude : regular expression, optional
        Which 2-D tensors are wanted, matched anywhere in the name. Default all: the paper's set,
        embeddings and lm_head too.

    Raises
    ------
    ValueError
        If a wanted matrix is missing from one side or has another shape there, if aligned lacks
        what its config describes, if nothing is wanted, if a pattern is not a regular expression,
        if both checkpoints are the same, or if a tensor of either holds NaN or infinite values.
    """
    base = base.like(aligned.matrices)
    for one, other in ((aligned, base), (base, aligned)):
        names = matching(one.matrices, include, exclude, of=one.name)
        if lost := [name for name in names if name not in other.matrices]:
            raise ValueError(
                f"{lost[0]}: in {one.name} but not in {other.name} ({len(lost)} such matrices). "
                "Are they of one architecture? If it is a part you can do without, pass "
                f'exclude="{re.escape(lost[0])}".'
            )
    wanted = matching(aligned.matrices, include, exclude, of=aligned.name)
    for name in wanted:
        _check_shape(name, base, aligned)
    if aligned.missing:
        raise ValueError(
            f"{aligned.name}: its config.json describes {aligned.missing[0]}, which is not there "
            f"({len(aligned.missing)} such parameters). Download or copy all of its files again."
        )
    if base.fingerprint == aligned.fingerprint or base.weight_hashes == aligned.weight_hashes:
        raise ValueError(
            f"{base.name} and {aligned.name} hold the same weights: the delta is zero everywhere. "
            "Give the model from before the alignment as BASE."
        )
    for side in (base, aligned):
        side.refuse_nonfinite(matrices=read_all)
    files = {info.file for info in aligned.tensors.values()}
    return PairReport(
        matrices=tuple(wanted),
        tied=aligned.tied,
        notes=tuple(_notes(base, aligned, wanted, include, exclude)),
        largest_mb=max(4e-6 * aligned.matrices[n].size for n in wanted),
        total_mb=sum(file.stat().st_size for file in files) / 1e6,
    )


def delta(
    base: Checkpoint,
    other: Checkpoint,
    name: str,
    device: str,
    room: Callable[..., Tensor] = torch.empty,
) -> Tensor:
    """Return `W_other - W_base` of one tensor in float32, in memory that `room` gives."""
    ours, theirs = other.read_part(name), base.read_part(name)
    dW = room(tuple(ours.shape), dtype=torch.float32, device=torch.device(device))
    for new, W, W_base in zip(dW.split(ROWS), ours.split(ROWS), theirs.split(ROWS), strict=True):
        new.copy_(W).sub_(W_base.to(device, torch.float32))
    return dW


def matching(
    names: Iterable[str], include: str | None, exclude: str | None, *, of: str
) -> list[str]:
    """Return the names that the patterns leave: found by `include`, and not by `exclude`.

    Parameters
    ----------
    names : iterable of str
        Of matrices, a non-empty collection.
    of : str
        What they are the matrices of, for the error.

    Raises
    ------
    ValueError
        If none is left, or a pattern is not a regular expression.
    """
    for pattern in (include, exclude):
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"{pattern!r}: not a regular expression ({error}).") from error
    found = [
        name
        for name in names
        if re.search(include or "", name) and not (exclude and re.search(exclude, name))
    ]
    if not found:
        raise ValueError(
            f"include={include!r}, exclude={exclude!r} leave no matrix of {of}. "
            f"A name looks like {next(iter(names), 'nothing: there is no matrix')}."
        )
    return found


def both(first: str | None, second: str | None, join: str) -> str | None:
    """Return two patterns joined, such as by "(?:{})|(?:{})", or the one that there is."""
    return join.format(first, second) if first and second else first or second


def _check_shape(name: str, base: Checkpoint, aligned: Checkpoint) -> None:
    """Raise if one matrix has another shape on the other side."""
    ours, theirs = aligned.matrices[name].shape, base.matrices[name].shape
    if ours == theirs:
        return
    vocabulary = "|".join(
        n.split(".")[-2] for n in aligned.matrices if is_embedding(n) or is_head(n)
    )
    what = (
        "One checkpoint gained a token; resize the base embeddings, or pass "
        f'exclude="{vocabulary}".'
        if is_embedding(name) or is_head(name)
        else "They are not of one architecture, and there is no delta to take."
    )
    raise ValueError(f"{name}: base has shape {theirs}, aligned has {ours}. {what}")


def _notes(
    base: Checkpoint,
    aligned: Checkpoint,
    wanted: list[str],
    include: str | None,
    exclude: str | None,
) -> Iterator[str]:
    """Yield what may surprise, one sentence each."""
    if aligned.tied in wanted:
        yield (
            f"{aligned.tied} is tied to the output head: a checkpoint is edited in both places at "
            "once, an adapter leaves it out."
        )
    dtypes = {n: [side.matrices[n].dtype for side in (base, aligned)] for n in wanted}
    if differs := [pair for pair in dtypes.values() if pair[0] != pair[1]]:
        b, a = differs[0]
        yield (
            f"{len(differs)} matrices have another dtype in base ({b}) than in aligned ({a}): part "
            "of the delta is rounding."
        )
    if eight := [side.name for side in (base, aligned) if side.quantised]:
        yield (
            f"{' and '.join(eight)}: quantised to 8-bit floats, which are read times their scales; "
            "part of the delta is rounding. An edited checkpoint is written in bfloat16."
        )
    if left := len(aligned.matrices) - len(wanted):
        yield (
            f"{left} of {len(aligned.matrices)} matrices are left out (include={include!r}, "
            f"exclude={exclude!r}); the paper takes all."
        )
    parts = aligned.parts
    others = [n for n, p in parts.items() if len(p.shape) > 1 and not p.is_matrix]
    if others:
        share = sum(parts[n].size for n in others) / sum(p.size for p in parts.values())
        yield (
            f"{len(others)} tensors of more than one dimension are no matrices (convolutions, "
            f"biases, parameters of their own; the first is {others[0]}): {share:.2%} of the "
            "numbers, which are not factored and keep their aligned values."
        )
    if aligned.adapter and aligned.is_adapter_of(base):
        yield (
            f"{aligned.name} is a LoRA adapter of {base.name}: the delta is factored from its own "
            f"factors, and is zero in {sum(n not in aligned.adapter.names for n in wanted)} of "
            f"{len(wanted)} matrices."
        )
    elif aligned.base:
        yield (
            f"{aligned.name} is a LoRA adapter of {aligned.base.name}, whose weights are not those "
            f"of {base.name}: the delta is that of the merged weights."
        )
