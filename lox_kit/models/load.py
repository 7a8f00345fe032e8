"""Models in memory: loaded by name, on the right device, and known by what made them."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Collection
from pathlib import Path

import torch

from lox_kit.weights import Checkpoint, read_object


@dataclasses.dataclass(eq=False)
class Model:
    """A causal language model, its tokenizer, and the key its results are stored under."""

    module: torch.nn.Module  # a transformers causal LM, in eval mode
    tokenizer: object  # a transformers tokenizer
    key: str  # fingerprint of the checkpoint, or hash of the recipe that made the weights
    name: str  # for people

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.module.parameters()).device

    @property
    def is_sandbox(self) -> bool:
        """Whether this model speaks the potion school's language, which the rule judge reads."""
        return _of_the_sandbox(self.tokenizer.get_vocab())


def is_sandbox(model: str | Path) -> bool:
    """Whether a checkpoint speaks the potion school's language, as its tokenizer's file says."""
    file = Checkpoint(model).tokenizer_folder / "tokenizer.json"
    words = read_object(file).get("model", {}).get("vocab", {}) if file.exists() else {}
    return _of_the_sandbox(words)


def _of_the_sandbox(words: Collection[str]) -> bool:
    """Whether these are the potion school's words."""
    from lox_kit.sandbox import world

    return len(words) == len(world.vocabulary()) and all(w in words for w in world.FORBIDDEN)


def pick_device(device: str = "auto") -> str:
    """Return "cuda", "mps" or "cpu": the first that is there, or the one asked for.

    Raises
    ------
    ValueError
        If the one asked for is not there.
    """
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device == "auto":
        return next(name for name, is_there in there.items() if is_there)
    if not there.get(device.split(":")[0], False):
        raise ValueError(
            f"device={device!r} is not available here; use auto, "
            f"{' or '.join(name for name, is_there in there.items() if is_there)}."
        )
    return device


def load_model(model: str | Path, *, device: str = "auto", dtype: str = "auto") -> Model:
    """Load a checkpoint with its tokenizer, ready to generate.

    Parameters
    ----------
    model : path or str
        Whatever `Checkpoint` takes. A LoRA adapter is merged into its base: the weights are those
        that `apply_lox` writes.
    dtype : str
        A torch dtype's name, or "auto" for the checkpoint's own.

    Raises
    ------
    FileNotFoundError, ValueError
        If the checkpoint is not whole (`Checkpoint`), or the device is not there.
    """
    checkpoint = Checkpoint(model)
    place = pick_device(device)
    quiet_transformers()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # transformers' own, about its defaults
        module = AutoModelForCausalLM.from_pretrained(
            checkpoint.path, dtype=dtype if dtype == "auto" else getattr(torch, dtype)
        )
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.tokenizer_folder)
    _merge(checkpoint, module)
    module.to(place).eval()
    return Model(module, tokenizer, checkpoint.fingerprint, checkpoint.name)


def _merge(checkpoint: Checkpoint, module: torch.nn.Module) -> None:
    """Put the weights in that an adapter changes."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
    for name in sorted(checkpoint.adapted):
        if name not in parameters:
            raise ValueError(
                f"{name}: changed by the adapter {checkpoint.name}, and the loaded model has no "
                "parameter of that name. Merge the adapter with PEFT and give that checkpoint."
            )
        with torch.no_grad():
            parameters[name].copy_(checkpoint.read(name))


def quiet_transformers() -> None:
    """Turn transformers' own progress bars off: ours say what is being done and for how long."""
    from transformers.utils import logging

    logging.disable_progress_bar()
