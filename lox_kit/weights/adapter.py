"""A PEFT LoRA adapter on disk: what it changes in its base, as factors.

PEFT adds `scaling * B A` to a linear weight (out, in), and the transpose of that to an embedding
(tokens, width) and to a Conv1D (in, out); the scaling is lora_alpha / r, or / sqrt(r) with rsLoRA
(arXiv:2312.03732). Tensors that are stored whole (`modules_to_save`) take the base's place. An
adapter of experts, or other parameters that are no linear layers (`target_parameters`), has the
factors that PEFT puts into the model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from .architecture import find_places, is_embedding, is_head, same_tensors
from .files import (
    TensorInfo,
    read_header,
    read_object,
    read_tensor,
    refuse_nonfinite,
)
from .hub import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from .library import skeleton
from .targets import load_adapter, lora_factors, lora_layers

TRANSPOSED = ("gpt2", "openai-gpt")  # with linear layers that store (in, out)
_CONV1D = re.compile(r"\.(c_attn|q_attn|c_fc|c_proj)\.weight")
MERGE = "Merge it with PEFT (merge_and_unload, then save_pretrained) and give that checkpoint."
# Fields of adapter_config.json (PEFT 0.21) that, set, make the delta another one than B A.
# Of variants to come, those with tensors of their own are refused for these.
VARIANTS = """use_dora use_qalora use_bdlora lora_bias
    trainable_token_indices alora_invocation_tokens layer_replication megatron_config arrow_config
    corda_config lora_ga_config velora_config monteclora_config kasa_config""".split()
KEEPS_BASE = (True, False, "gaussian", "eva", "orthogonal")  # initialisations that leave W alone
_NAMES = re.compile(r"\^?([\w-]|\\?\.)+\$?")  # a pattern of plain names, with or without ends
MOST = 1000  # patterns of an adapter
WHOLE = "whole"
_KEY = re.compile(r"(?P<module>.+)\.(?P<part>lora_(?:embedding_)?[AB])(\.default)?(\.weight)?")


class LoraAdapter:
    """A LoRA adapter of a base checkpoint, plain or with `target_parameters`.

    Parameters
    ----------
    folder : path
        With `adapter_config.json` and `adapter_model.safetensors`.
    base : Checkpoint
        What it is an adapter of; its headers are compared with the adapter's.

    Attributes
    ----------
    names : frozenset of str
        Tensors of the base that the adapter changes.

    Raises
    ------
    FileNotFoundError, ValueError
        If the weights are missing or pickled, the adapter is another kind than plain LoRA, or it
        does not fit the base; of one with `target_parameters`, also if PEFT does not take up all.
    ImportError
        If it has `target_parameters`, without PEFT.
    """

    def __init__(self, folder: Path, base):
        self.folder, self.base = folder, base
        self._config = read_object(folder / ADAPTER_CONFIG)
        _refuse_variants(self._config, folder)
        # By parameter: its lora_A and lora_B, and what takes its place whole.
        self._parts: dict[str, dict[str, TensorInfo]] = {}
        self._held: dict[str, tuple[Tensor, Tensor]] = {}  # factors, by matrix of the base
        self._inside: dict[str, list[str]] = {}  # the matrices in each of its tensors
        header = read_header(_weight_file(folder))
        if self._config.get("target_parameters"):
            self._open_with_peft()
        else:
            self._open(header)
        self.names = frozenset(self._parts) | frozenset(self._inside)
        self._check()

    def _open(self, header: dict[str, TensorInfo]) -> None:
        """Find out what each tensor of a plain adapter is of."""
        folder, base = self.folder, self.base
        for key, info in header.items():
            name = key.removeprefix("base_model.model.")
            if match := _KEY.fullmatch(name):
                name, part = f"{match['module']}.weight", match["part"].replace("embedding_", "")
            else:
                name, part = name.replace(".base_layer.", "."), WHOLE
            held = self._parts.setdefault(name, {})
            if part in held:
                raise ValueError(f"{folder}: holds {held[part].name} and {key}, which are one.")
            held[part] = info
        modules = {name: name.removesuffix(".weight") for name in self._parts}  # as in the model
        if base.is_known and not self._parts.keys() <= base.tensors.keys():
            stored = same_tensors(base.skeleton, self._parts, base.tensors)
            own, self._parts = self._parts, {}
            for name, parts in own.items():
                held = self._parts.setdefault(stored[name], {})
                for part in held.keys() & parts.keys():
                    one, other = held[part].name, parts[part].name
                    raise ValueError(f"{folder}: holds {one} and {other}, which are one.")
                held |= parts
            modules = {stored[name]: module for name, module in modules.items()}
        self._transposed = {
            name
            for name, parts in self._parts.items()
            if any("lora_embedding" in info.name for info in parts.values())
            or (base.config.get("model_type") in TRANSPOSED and _CONV1D.search(name))
        }
        self._ranks = _by_pattern(self._config, "r", "rank_pattern", modules)
        self._alphas = _by_pattern(self._config, "lora_alpha", "alpha_pattern", modules)

    def _open_with_peft(self) -> None:
        """Have PEFT put the adapter into the model, and keep the factors that it has there."""
        if self._config.get("modules_to_save"):
            raise ValueError(
                f"{self.folder}: modules_to_save beside target_parameters is not read. {MERGE}"
            )
        model = skeleton(self.base.path)
        shapes = {name: W.shape for name, W in model.state_dict().items()}
        layers = lora_layers(load_adapter(self.folder, model)).items()
        held = {parameter: lora_factors(layer) for parameter, layer in layers}
        found = set()
        for name, place in find_places(self.base.skeleton, self.base.parts).items():
            piece, *others = place
            if others or piece.parameter not in held:
                continue
            matrix, rows, transposed = piece.within(shapes[piece.parameter])
            left, right = held[piece.parameter][matrix]
            self._held[name] = (right.T, left[rows].T) if transposed else (left[rows], right)
            self._inside.setdefault(self.base.parts[name].info.name, []).append(name)
            found.add(piece.parameter)
        if lost := sorted(held.keys() - found):
            raise self._not_there(lost[0])

    def _check(self) -> None:
        """Raise if the adapter cannot be added to the base's tensors."""
        base = self.base
        for name in sorted(self.names):
            there = base.tensors.get(name)
            if base.tied and (is_embedding(name) or is_head(name)):
                raise ValueError(
                    f"{self.folder}: changes {name}, and in {base.name} the embedding is tied to "
                    "the output head: PEFT changes one of the two places, and both if it merges. "
                    "Save that base untied (tie_word_embeddings=false and a head of its own) and "
                    "give UNTIED+ADAPTER."
                )
            if there is None:
                raise self._not_there(name)
            for shape in self._shapes(name):
                if shape != there.shape:
                    raise ValueError(
                        f"{self.folder}: changes {name} as {shape}; in {base.name} it is "
                        f"{there.shape}. Is that the base it was trained on, and not resized?"
                    )

    def _not_there(self, name: str) -> ValueError:
        return ValueError(
            f"{self.folder}: changes {name}, which {self.base.name} does not have. Is that the "
            "base it was trained on?"
        )

    def _shapes(self, name: str) -> list[tuple[int, ...]]:
        """Return the shapes a parameter must have, and make sure both factors are there."""
        shape = {part: info.shape for part, info in self._parts.get(name, {}).items()}
        shapes = [shape.pop(WHOLE)] if WHOLE in shape else []
        if shape:
            r = self._ranks[name]
            A, B = (shape.get(f"lora_{side}", ()) for side in "AB")
            if len(A) != 2 or len(B) != 2 or (A[0], B[1]) != (r, r):
                raise ValueError(
                    f"{self.folder}: lora_A {A} and lora_B {B} of {name} are not factors of rank "
                    f"{r}, which {ADAPTER_CONFIG} says; both files must be of one save."
                )
            shapes.append((A[1], B[0]) if name in self._transposed else (B[0], A[1]))
        return shapes

    def factors(self, name: str) -> tuple[Tensor, Tensor] | None:
        """Return left (out, r) and right (r, in) of the LoRA delta `left @ right`, in float32.

        None if this part of the base has no factors.
        """
        parts = self._parts.get(name, {})
        if "lora_A" not in parts:
            return self._held.get(name)
        A, B = (read_tensor(parts[f"lora_{side}"]).to(torch.float32) for side in "AB")
        left, right = (A.T, B.T) if name in self._transposed else (B, A)
        r = self._ranks[name]
        scaling = self._alphas[name] / (math.sqrt(r) if self._config.get("use_rslora") else r)
        return left * scaling, right

    def replaces(self, name: str) -> bool:
        """Whether the adapter holds a tensor whole, and with other values than the base.

        PEFT stores adapted embeddings whole beside their factors; mostly those are the base's.
        """
        if (whole := self._parts.get(name, {}).get(WHOLE)) is None:
            return False
        W = self.base.read(name)
        return not torch.equal(read_tensor(whole).to(W.dtype), W)

    def read(self, name: str) -> Tensor:
        """Return `W + scaling B A`, summed in float32 and rounded once to the dtype of W."""
        W = self.base.read(name)
        if name not in self.names:
            return W
        parts = self._parts.get(name, {})
        if WHOLE in parts:
            W = read_tensor(parts[WHOLE]).to(W.dtype)
        if parts.keys() != {WHOLE}:
            total = W.to(torch.float32, copy=True)
            if factors := self.factors(name):
                total.addmm_(*factors)
            else:
                for expert in self._inside[name]:
                    self.base.parts[expert].of(total).addmm_(*self._held[expert])
            W = total.to(W.dtype)
        refuse_nonfinite(W, f"{name} with the adapter {self.folder}")
        return W


def _by_pattern(config: dict, field: str, patterns: str, modules: Mapping[str, str]) -> dict:
    """Return a number of the config as it is for each parameter, given what its module is called.

    It is that of the first pattern which is the module's whole name, or the end of it.
    """
    found = dict.fromkeys(modules, config[field])
    for pattern, value in reversed((config.get(patterns) or {}).items()):
        fits = re.compile(rf"(.*\.)?({pattern})$").match  # as in PEFT
        found |= {name: value for name, module in modules.items() if fits(module)}
    return found


def _weight_file(folder: Path) -> Path:
    """Return the adapter's weights, or say what is wrong with the folder."""
    file = folder / ADAPTER_WEIGHTS
    if not file.exists() and file.with_suffix(".bin").exists():
        raise ValueError(
            f"{file.with_suffix('.bin')}: a pickle, which can run code when it is read. Load the "
            "adapter with PEFT on a machine you can lose, and save it again."
        )
    if not file.exists():
        raise FileNotFoundError(f"{folder}: holds {ADAPTER_CONFIG} but no {ADAPTER_WEIGHTS}.")
    return file


def _refuse_variants(config: dict, folder: Path) -> None:
    """Raise unless the config is that of plain LoRA."""
    kind = config.get("peft_type")
    wrong = {} if kind == "LORA" else {"peft_type": kind}
    wrong |= {field: config[field] for field in VARIANTS if config.get(field)}
    if config.get("bias", "none") != "none":
        wrong["bias"] = config["bias"]
    start = config.get("init_lora_weights", True)
    if start not in KEEPS_BASE:  # PiSSA and the like take B A out of the base's weights at first
        wrong["init_lora_weights"] = start
    if wrong:
        shown = ", ".join(f"{field}={value!r}" for field, value in wrong.items())
        raise ValueError(f"{folder}: {shown} is not plain LoRA, whose delta is B A. {MERGE}")
    for field, pattern in (("r", "rank_pattern"), ("lora_alpha", "alpha_pattern")):
        patterns = config.get(pattern) or {}
        if not isinstance(patterns, dict):
            raise ValueError(f"{folder / ADAPTER_CONFIG}: {pattern} is not an object of patterns.")
        odd = [p for p in patterns if not _NAMES.fullmatch(p)]
        if odd or len(patterns) > MOST:
            what = f"{len(patterns)} entries" if len(patterns) > MOST else f"{odd[0]!r:.90}"
            raise ValueError(
                f"{folder / ADAPTER_CONFIG}: {pattern} has {what}; up to {MOST} names of modules "
                f"are read there, and no other regular expression. {MERGE}"
            )
        for value in (config.get(field), *patterns.values()):
            real = isinstance(value, int | float) and not isinstance(value, bool)
            number = float(value) if real and value and abs(value) < 1e300 else math.nan
            if not math.isfinite(number) or (field == "r" and (number < 1 or number % 1)):
                raise ValueError(f"{folder / ADAPTER_CONFIG}: has no number {field!r}: {value!r}.")
