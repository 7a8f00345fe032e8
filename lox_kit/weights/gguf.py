"""A GGUF, the format of llama.cpp, as a checkpoint in float32."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import torch

from lox_kit.folders import whole

from .files import SINGLE, is_head
from .library import transformers_for
from .quantised import plain_config
from .writer import write_tensors

NAMES = ("_name_or_path", "_model_name_or_path")  # of a config: where it was, which is no setting


def convert_gguf(file: str | Path, out: str | Path) -> Path:
    """Write a GGUF as a checkpoint in float32, its weights as they are de-quantised.

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
    with whole(out) as work:
        with transformers_for(file) as library, contextlib.redirect_stderr(io.StringIO()):
            here = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
            tokenizer = library.AutoTokenizer.from_pretrained(**here)
            model, found = library.AutoModelForCausalLM.from_pretrained(
                **here, dtype=torch.float32, output_loading_info=True
            )
        if missing := sorted(found["missing_keys"]):
            raise ValueError(f"{file}: {len(missing)} weights are missing, first {missing[0]}.")
        tied = model.config.tie_word_embeddings
        state = {n: W for n, W in model.state_dict().items() if not (tied and is_head(n))}
        layout = {name: (W.dtype, tuple(W.shape)) for name, W in state.items()}
        write_tensors(work / SINGLE, layout, {}, state.values())
        config = plain_config(model.config.to_diff_dict())
        config |= {"architectures": [type(model).__name__], "dtype": "float32"}
        kept = {name: value for name, value in config.items() if name not in NAMES}
        (work / "config.json").write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")
        model.generation_config.save_pretrained(work)
        tokenizer.save_pretrained(work)
    return Path(out)
