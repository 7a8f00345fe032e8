"""PEFT in a model in memory: what it can adapt, by which names, and what it adds to each."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn

from .hub import ADAPTER_WEIGHTS

UNSUPPORTED = ("mamba", "falcon_mamba", "mamba2")  # PEFT wraps nothing in their mixers
REFUSED = ("falcon_h1", "nemotron_h")  # nor the projections of this name in these:
OUTPUT = "out_proj"
# Of these something is used from outside, past PEFT's wrapper: Jamba's bias, RecurrentGemma's
# state, DBRX's experts.
READ_DIRECTLY = (".dt_proj.", ".rg_lru.", ".experts.mlp.")
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


def lora_layers(model: nn.Module) -> dict:
    """Return PEFT's layers in a model that it has wrapped, each by the parameter that it adapts."""
    from peft.tuners.lora import LoraLayer

    layers = {}
    for path, layer in model.named_modules():
        if isinstance(layer, LoraLayer):
            own = path.removeprefix("base_model.model.").replace(".base_layer", "")
            layers[f"{own}.{getattr(layer, 'parameter_name', 'weight')}"] = layer
    return layers


def lora_factors(layer) -> list[tuple[Tensor, Tensor]]:
    """Return left and right of the delta `left @ right` of each expert; of one, if it has none.

    PEFT adds B A to a linear weight (out, in), and its transpose to an embedding (tokens, width)
    and to a Conv1D (in, out). Of experts A is (experts * r, in) and B (out, r * experts), which are
    swapped where a parameter is (experts, in, out).
    """
    experts = getattr(layer, "num_experts", 1)
    A, B = (getattr(layer, name)["default"] for name in lora_names(layer))
    A, B = (W.float() if isinstance(W, Tensor) else W.weight.float() for W in (A, B))
    left = B.reshape(len(B), -1, experts).permute(2, 0, 1) * layer.scaling["default"]
    right = A.reshape(experts, -1, A.shape[1])
    if lora_transposes(layer):
        left, right = right.mT, left.mT
    return list(zip(left, right, strict=True))


def lora_transposes(layer) -> bool:
    """Whether PEFT adds the transpose of B A to the parameter."""
    if getattr(layer, "num_experts", 1) > 1:
        return not layer._did_swap_in_out_features
    base = layer.get_base_layer()
    return isinstance(base, nn.Embedding) or is_conv1d(base)


def lora_names(layer) -> tuple[str, str]:
    """Return what PEFT calls the two tensors of one of its layers."""
    embedded = isinstance(layer.get_base_layer(), nn.Embedding)
    return ("lora_embedding_A", "lora_embedding_B") if embedded else ("lora_A", "lora_B")


def _name_targets(config, module: nn.Module, tensors: Iterable[str]) -> None:
    """Have a config that has regular expressions name what the adapter's tensors are of instead."""
    patterns = (config.target_modules, config.exclude_modules)
    if not config.layers_pattern and not any(isinstance(pattern, str) for pattern in patterns):
        return
    wanted = tuple(f".{name}" for name in config.target_parameters or ())
    changed = [name for name, _ in module.named_parameters() if f".{name}".endswith(wanted)]
    stacks = {name.rpartition(".")[0] for name in changed}
    paths = {name.removeprefix("base_model.model.").rpartition(".lora_")[0] for name in tensors}
    config.target_modules = paths & {n for n, _ in module.named_modules() if n not in stacks}
    config.exclude_modules = config.layers_to_transform = config.layers_pattern = None


def load_adapter(folder: Path, module: nn.Module) -> nn.Module:
    """Return a model without values as PEFT wraps it, with an adapter's tensors in it.

    Raises
    ------
    ValueError
        Unless PEFT puts every tensor of the adapter into the model, and no other.
    """
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
    from peft import set_peft_model_state_dict as put

    tensors = load_file(folder / ADAPTER_WEIGHTS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = LoraConfig.from_pretrained(str(folder))
            _name_targets(config, module, tensors)
            model = get_peft_model(module, config, low_cpu_mem_usage=True)
            for layer in model.modules():  # would move it to where the model has no values
                layer.__dict__["_move_adapter_to_device_of_base_layer"] = lambda adapter: None
            put(model, tensors, low_cpu_mem_usage=True)
    except Exception as error:  # of any kind: a config may hold anything
        said = " ".join(str(error).split())[:300]
        raise ValueError(f"{folder}: PEFT cannot read it ({said}).") from error
    held = get_peft_model_state_dict(model, save_embedding_layers=False)
    wrong = [n for n, W in held.items() if n not in tensors or not W.equal(tensors[n].to(W.dtype))]
    if wrong or len(held) < len(tensors):
        raise ValueError(
            f"{folder}: PEFT does not take up all of its {len(tensors)} tensors, first "
            f"{min([*wrong, *(tensors.keys() - held.keys())])}."
        )
    return model
