"""Quantised checkpoints: 8-bit floats with their scales are read, codes of other kinds are named.

A weight in FP8 is `q * scale`, with one scale for the tensor, for each output channel, or for each
block (DeepSeek-V3's `weight_scale_inv` multiplies as well, arXiv:2412.19437).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

import torch
from torch import Tensor

from .files import TensorInfo, read_tensor

EIGHT = (torch.float8_e4m3fn, torch.float8_e5m2)
FIELDS = ("quantization_config", "compression_config")  # of a config.json
WRITTEN = torch.bfloat16  # what a de-quantised weight is written as
_SCALE = re.compile(
    r"[._](input|output|activation|weight|kv|prob|[qkv])_(global_)?scale(_inv|_ub)?$"
)
_BLOCK = ("weight_block_size", "block_structure", "block_size")  # fields that say its sides
_CODES = re.compile(r"(weight|weight_packed|_blocks|W_q|_data)$")


@dataclasses.dataclass(frozen=True)
class ScaledInfo(TensorInfo):
    """A weight in 8-bit floats and the tensor of its scales."""

    scale: TensorInfo
    block: tuple[int, int] | None

    @property
    def written(self) -> torch.dtype:
        """The dtype that the weight has in an edited checkpoint."""
        return WRITTEN

    def read(self) -> Tensor:
        """Return the weight in float32."""
        try:
            return dequantise(read_tensor(self), read_tensor(self.scale), self.block)
        except ValueError as error:
            raise ValueError(f"{self.name} in {self.file}: {error}.") from error


def dequantise(q: Tensor, scale: Tensor, block: tuple[int, int] | None) -> Tensor:
    """Return `q * scale` in float32.

    Parameters
    ----------
    q : Tensor, (..., out, in)
        Values in 8 bits.
    scale : Tensor
        Of one value, (..., out), (..., out, 1), or (..., blocks of rows, blocks of columns).
    block : (int, int), optional
        Rows and columns that share a scale.

    Raises
    ------
    ValueError
        If the scales do not fit.
    """
    W, s = q.to(torch.float32), scale.to(torch.float32)
    *lead, out, into = W.shape
    if s.numel() == 1:
        return W * s.reshape(())
    if s.shape == W.shape[:-1]:
        s = s.unsqueeze(-1)
    if list(s.shape) == [*lead, out, 1]:
        return W * s
    rows, columns = block or (1, 1)
    if not block or list(s.shape) != [*lead, -(-out // rows), -(-into // columns)]:
        raise ValueError(
            f"scales {tuple(s.shape)} do not divide a weight {tuple(W.shape)} into blocks of "
            f"{block or 'a size that config.json says: it has no weight_block_size'}"
        )
    s = s.repeat_interleave(rows, -2).repeat_interleave(columns, -1)
    return W * s[..., :out, :into]


def with_scales(tensors: dict[str, TensorInfo], config: dict, name: str) -> dict[str, TensorInfo]:
    """Return the tensors of a checkpoint, 8-bit weights joined with their scales.

    Raises
    ------
    ValueError
        If an 8-bit weight has no scales, and others have or the config says that it should.
    """
    eight = [n for n, info in tensors.items() if info.dtype in EIGHT and not _SCALE.search(n)]
    described = _described(config)
    if not eight or not (described or any(map(_SCALE.search, tensors))):
        return tensors  # none is of 8 bits, or they are cast and not quantised
    block = _block(described)
    joined = {n: info for n, info in tensors.items() if not _SCALE.search(n)}
    for weight in eight:
        info = tensors[weight]
        scale = tensors.get(f"{weight}_scale_inv") or tensors.get(f"{weight}_scale")
        if scale is None:
            raise ValueError(
                f"{name}: {weight} is in {info.dtype} and has no {weight}_scale_inv or "
                f"{weight}_scale beside it; download or copy again."
            )
        joined[weight] = ScaledInfo(info.name, info.shape, info.dtype, info.file, scale, block)
        joined.pop(scale.name, None)
    return joined


def _block(described: dict) -> tuple[int, int] | None:
    """Return the sides of the blocks that share a scale, wherever a description has them."""
    said = (value for field, value in fields_of(described) if field in _BLOCK)
    pairs = (value for value in said if isinstance(value, list) and len(value) == 2)
    return next(((a, b) for a, b in pairs if type(a) is type(b) is int and min(a, b) > 0), None)


def plain_config(config: dict) -> dict:
    """Return the config.json of a checkpoint that is quantised no more."""
    kept = {name: value for name, value in config.items() if name not in FIELDS}
    if isinstance(kept.get("text_config"), dict):
        kept["text_config"] = plain_config(kept["text_config"])
    return kept | {"dtype": str(WRITTEN).removeprefix("torch.")}


def refuse_codes(tensors: dict[str, TensorInfo], config: dict, name: str) -> None:
    """Raise ValueError if the weights are codes that only their own library can read."""
    described = _described(config)
    method = described.get("quant_method") or described.get("quant_algo") or "unknown"
    codes = [
        n
        for n, info in tensors.items()
        if len(info.shape) > 1 and not info.dtype.is_floating_point and _CODES.search(n)
    ]
    read = any(isinstance(info, ScaledInfo) for info in tensors.values())
    if codes or (described and not read):
        what = f"the first is {codes[0]}" if codes else "config.json says so, of whole weights"
        whole = "" if codes else " If they are meant to be whole, take that out of config.json."
        raise ValueError(
            f"{name}: quantised ({method if described else 'integer codes'}; {what}). Give the "
            "checkpoint that it was quantised from, in bfloat16 or float32, and quantise the "
            f"result.{whole}"
        )


def _described(config: dict) -> dict:
    """Return the part of a config.json that describes a quantisation."""
    for part in (config, config.get("text_config") or {}):
        for field in FIELDS:
            if found := part.get(field):
                return found if isinstance(found, dict) else {"quant_method": str(found)}
    return {}


def fields_of(value, name: str = "") -> Iterator[tuple[str, object]]:
    """Yield every field of JSON data with its name, those within others too."""
    yield name, value
    if isinstance(value, dict):
        for inner, found in value.items():
            yield from fields_of(found, inner)
    elif isinstance(value, list):
        for found in value:
            yield from fields_of(found, name)
