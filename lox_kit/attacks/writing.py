"""What a training run leaves: a model in training as a checkpoint, and a trained copy."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor

from lox_kit.folders import remove_folder
from lox_kit.models import Model, load_module
from lox_kit.threads import is_first
from lox_kit.weights import Checkpoint, copy_beside, lora_layers, lora_share

from .resuming import Step, StoppedError, resume_folder, work_folder


def save_model(
    model, tokenizer, out: Path, dtypes: dict | None = None, config: object = None
) -> None:
    """Write a model in training as a full checkpoint, a LoRA adapter added to its weights.

    Parameters
    ----------
    dtypes : dict of name to torch.dtype, optional
        What the weights are rounded to; default their own.
    config : transformers config, optional
        Written in place of the model's, which trainers change.
    """
    adapted = hasattr(model, "peft_config")
    base = model.get_base_model() if adapted else model
    state = _merged(base) if adapted else model.state_dict()
    state = {name: W.to((dtypes or {}).get(name, W.dtype)) for name, W in state.items()}
    dtype = next(iter(state.values())).dtype
    base.save_pretrained(out, state_dict=state)
    config = copy.deepcopy(config or base.config)
    config.dtype, config.architectures = dtype, base.config.architectures
    config.save_pretrained(out)
    tokenizer.save_pretrained(out)


def _merged(base) -> dict[str, Tensor]:
    """Return the weights of a model that PEFT has wrapped by their own names, adapters added.

    What is added to is on the CPU, one matrix after the other: merging a copy of the model, as PEFT
    does, would take the memory of a second one on its device.
    """
    own = {name: W for name, W in base.state_dict().items() if ".lora_" not in name}
    state = {name.replace(".base_layer", ""): W for name, W in own.items()}
    for name, layer in lora_layers(base).items():
        W = state[name].detach().clone()
        W += layer.get_delta_weight("default").detach()
        state[name] = W.cpu()
    return state


def train_copy(
    model: Model,
    train: Callable[..., list[Step]],
    key: str,
    out: Path,
    record: str,
    about: dict,
) -> Path:
    """Train a copy of a model and return the checkpoint's folder, `out`.

    The lock of `out` is held by the caller. What was at `out` is replaced. Of processes that train
    together the first writes it, and the others return once it is there.

    Parameters
    ----------
    train : callable
        Given the copy and the run's work `folder`, trains it in place and returns the steps.
    key : str
        Of the run: another run of the same `out` has another work folder, which lies hidden beside
        `out` and becomes it once the run is finished.
    record : str
        The name of a JSON file in the checkpoint, of `about` and the losses. Its source also gets
        the number of steps, the hashes of the weights and what share of them LoRA reached.

    Raises
    ------
    StoppedError
        If it ended before its last step.
    ValueError
        If what was written does not load back to the model that was trained, or the model exists
        in memory alone.
    """
    from accelerate import PartialState

    model.refuse_writing()
    copied, work = copy.deepcopy(model.module), out.with_name(f".{out.name}.{key[:8]}.partial")
    with work_folder(work) if is_first() else nullcontext():
        steps = train(copied, folder=work)
    if steps[-1].step < steps[-1].total:
        raise StoppedError(
            f"stopped after step {steps[-1].step} of {steps[-1].total}; the same call resumes it."
        )
    if is_first():
        (work / record).unlink(missing_ok=True)  # of this run, cut off at its very end
        save_model(copied, model.tokenizer, work)
        copy_beside(model.beside, work)
        _refuse_other(work, copied)
        made = {"steps": steps[-1].total, "weights": Checkpoint(work).weight_hashes}
        if (work / "adapter").exists():
            made["lora_share"] = lora_share(model.module)
        said = {**about, "losses": [s.loss for s in steps], "source": about["source"] | made}
        (work / record).write_text(json.dumps(said, indent=1))
        remove_folder(resume_folder(work))
        remove_folder(out)
        os.replace(work, out)
    PartialState().wait_for_everyone()
    return out


def _refuse_other(folder: Path, module) -> None:
    """Raise ValueError unless a checkpoint loads back to this very model."""
    trained, loaded = module.state_dict(), load_module(Checkpoint(folder)).state_dict()
    for name in trained.keys() | loaded.keys():
        there = name in trained and name in loaded
        if not (there and torch.equal(loaded[name].to(trained[name].dtype), trained[name].cpu())):
            raise ValueError(
                f"{folder}: written, but {name} does not load back as it was trained. The trained "
                f"weights are kept in {resume_folder(folder)}; the same call writes them again."
            )
