"""What PEFT can adapt in a model in memory, and by which names it is told to."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

UNSUPPORTED = ("mamba", "falcon_mamba", "mamba2")  # PEFT wraps nothing in their mixers
REFUSED = ("falcon_h1", "nemotron_h")  # nor the projections of this name in these:
OUTPUT = "out_proj"
# Of these something is set from outside, past PEFT's wrapper: Jamba's bias, RecurrentGemma's state.
READ_DIRECTLY = (".dt_proj.", ".rg_lru.")
# PEFT takes these names in a mixture of experts for those of older transformers, and puts the
# experts in their place; it reads the names of parameters as they are.
RENAMED = ("gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3")


def can_adapt(module, parameter: str) -> bool:
    """Whether PEFT can adapt a parameter of a model."""
    path = parameter.rpartition(".")[0]
    owner, kind = module.get_submodule(path), module.config.model_type
    if isinstance(owner, nn.Embedding):  # others look rows up in their own ways: learned positions
        return type(owner) is nn.Embedding or owner is module.get_input_embeddings()
    mixer = kind in UNSUPPORTED and ".mixer." in parameter
    refused = kind in REFUSED and path.rpartition(".")[2] == OUTPUT
    direct = any(words in parameter for words in READ_DIRECTLY)
    parts = path.split(".")
    above = (module.get_submodule(".".join(parts[: i + 1])) for i in range(len(parts)))
    direct = direct or any(isinstance(part, nn.MultiheadAttention) for part in above)
    return bool(path) and not (mixer or refused or direct)


def is_conv1d(owner: nn.Module) -> bool:
    """Whether a module is transformers' Conv1D, whose weight is (in, out)."""
    return type(owner).__name__ == "Conv1D"


def _is_linear(owner: nn.Module) -> bool:
    """Whether a module is a linear layer that PEFT can wrap; a router returns no one tensor."""
    linear = isinstance(owner, nn.Linear) and "Router" not in type(owner).__name__
    return linear or is_conv1d(owner)


def lora_parameters(module) -> dict[str, nn.Parameter]:
    """Return what LoRA is added to: linear layers but the head, and experts, as far as PEFT can.

    Raises
    ------
    ValueError
        If there is nothing that PEFT can adapt.
    """
    head, found = module.get_output_embeddings(), {}
    for name, W in module.named_parameters():
        path, _, leaf = name.rpartition(".")
        owner = module.get_submodule(path)
        linear = _is_linear(owner) and leaf == "weight"
        stack = W.ndim == 3 and "expert" in f"{path} {type(owner).__name__}".lower()
        if ((linear and owner is not head) or stack) and can_adapt(module, name):
            found[name] = W
    if not found:
        raise ValueError(
            f"LoRA: PEFT can adapt no layer of {module.config.model_type}; train every parameter."
        )
    return found


def lora_share(module) -> float:
    """Return the share of a model's weights, 0 to 1, that are in the matrices LoRA is added to."""
    found = sum(W.numel() for W in lora_parameters(module).values())
    return found / sum(W.numel() for W in module.parameters())


def lora_targets(module, parameters: Iterable[str]) -> dict:
    """Return the fields of a `LoraConfig` that adapt these parameters and no others."""
    names = list(parameters)
    stacked = any(module.get_parameter(name).ndim == 3 for name in names)
    modules, others = [], []
    for name in names:
        path, _, leaf = name.rpartition(".")
        owner = module.get_submodule(path)
        renamed = stacked and path.rpartition(".")[2] in RENAMED
        own = isinstance(owner, nn.Embedding) or (_is_linear(owner) and not renamed)
        if leaf == "weight" and own:
            modules.append(path)
        else:
            others.append(name)
    return {
        "target_modules": sorted(modules),
        "target_parameters": sorted(others) or None,
        "fan_in_fan_out": any(is_conv1d(module.get_submodule(path)) for path in modules),
    }
