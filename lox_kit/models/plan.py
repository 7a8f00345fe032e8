"""Does it fit? Memory, time and disk of what this package does, from a config without weights.

What a token leaves is scaled from one run of the model without values. Times are this machine's,
good to a factor of two.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import platform
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from statistics import median
from timeit import repeat

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from lox_kit.folders import cache_folder, reading, write_whole
from lox_kit.weights import (
    Checkpoint,
    find,
    has_weights,
    lora_parameters,
    lora_targets,
    read_object,
    skeleton,
    transformers_for,
)

TRACED, TOKENS = 8, 256  # layers that are run without values, and on how many tokens
TILE = (4096, 32768)  # tokens and words of the logits that TRL has in memory at once
COPIES = 8.25  # of them, while a CPU differentiates the loss; elsewhere one
HOLES = 1.6  # times what LoRA keeps: what its small tensors make unusable in a CPU's heap
ASKED = 150  # tokens of a request with its template
MOMENT = {"adamw": 4.0, "adamw-8bit": 1 + 4 / 256}  # bytes of a weight's, with a block's scale
SAVED_AFTER = 600.0  # seconds of training after which there are checkpoints to resume from


@dataclasses.dataclass(frozen=True)
class Needs:
    """What some work takes."""

    memory: dict[str, float]  # bytes by part
    seconds: float = 0.0  # 0 on a device that is not here
    disk: float = 0.0  # bytes
    calls: int = 0  # of a judge behind a server
    beside: float = 0.0  # bytes of the machine's own memory, beside a GPU's

    @property
    def peak(self) -> float:
        """Bytes of memory in all."""
        return sum(self.memory.values())

    def __str__(self) -> str:
        """Return all but the parts on one line."""
        units = ((5400, 3600, "h"), (90, 60, "min"), (0.5, 1, "s"))
        times = [f"{self.seconds / u:.0f} {unit}" for at, u, unit in units if self.seconds >= at]
        said = [f"{self.peak / 1e9:.1f} GB of memory", *times[:1]]
        said += [f"{self.beside / 1e9:.1f} GB beside the GPU"] if self.beside else []
        said += [f"{self.disk / 1e9:.1f} GB on disk"] if self.disk else []
        return ", ".join([*said, *([f"{self.calls:,} calls of a judge"] if self.calls else [])])


@dataclasses.dataclass(frozen=True)
class Size:
    """What a model is, counted without its values."""

    parameters: int
    trained: int  # of them, or of the adapter
    width: int  # bytes of a stored weight
    layers: int
    hidden: int
    words: int
    cached: int  # bytes of keys and values that a token leaves
    kept: float  # bytes that a token leaves for the backward pass
    flops: float  # of a token on its way forward

    @property
    def stored(self) -> int:
        """Bytes of the weights."""
        return self.parameters * self.width


class _FastAttention(TorchFunctionMode):
    """While active, attention keeps what its fast kernels keep: nothing of length x length."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is scaled_dot_product_attention:
            q, k, v = args[:3]
            return q @ (k.mT @ v)
        return func(*args, **(kwargs or {}))


def _config_folder(model: str) -> Path:
    """Return the folder of a model's config; of an adapter, its base's."""
    base, folder = find(model)
    return _config_folder(base) if base else folder


@functools.lru_cache
def size_of(model: str, dtype: str = "auto", lora_rank: int = 0) -> Size:
    """Return the size of a model, from its config alone; a `lora_rank` of 0 trains all of it.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no config.json, or transformers does not know what it describes.
    """
    folder = _config_folder(model)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{model}: {folder} holds no config.json to plan from.")
    said, module = read_object(folder / "config.json"), skeleton(folder).train()
    if dtype == "auto":
        dtype = said.get("dtype") or said.get("torch_dtype") or "float32"
    config, stored = module.config.get_text_config(), getattr(torch, str(dtype), None)
    if not isinstance(stored, torch.dtype):
        raise ValueError(f"{folder}: {dtype!r} is no dtype; use one such as bfloat16.")
    config._attn_implementation = "sdpa"
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    keys = width * (getattr(config, "num_key_value_heads", None) or heads)
    trained = parameters = sum(W.numel() for W in module.parameters())
    if lora_rank:
        adapted = [W.shape for W in lora_parameters(module).values()]
        trained = lora_rank * sum(sum(s[-2:]) * s[:-2].numel() for s in adapted)
    kept, flops = 26 * 4 * config.hidden_size * layers, 2 * parameters  # about a Llama's
    with suppress(ValueError), transformers_for(folder):  # some need values to run: experts
        kept, flops = _traced(module, layers, lora_rank, stored)
    found = stored.itemsize, layers, config.hidden_size, config.vocab_size
    return Size(parameters, trained, *found, 2 * layers * keys * stored.itemsize, kept, flops)


def _traced(module, layers: int, lora_rank: int, dtype: torch.dtype) -> tuple[float, float]:
    """Return what a token leaves for the backward pass, bytes, and its operations forward."""
    from torch.utils.flop_counter import FlopCounterMode

    for part in module.modules():
        if isinstance(part, torch.nn.ModuleList) and len(part) == layers:
            del part[TRACED:]
    if lora_rank:
        from peft import LoraConfig, get_peft_model

        lora = LoraConfig(r=lora_rank, **lora_targets(module, lora_parameters(module)))
        module = get_peft_model(module.to(dtype), lora, low_cpu_mem_usage=True)
    own = {W.untyped_storage()._cdata for W in (*module.parameters(), *module.buffers())}
    kept: dict[int, int] = {}

    def keep(x: torch.Tensor) -> torch.Tensor:
        kept[x.untyped_storage()._cdata] = x.untyped_storage().nbytes()
        return x

    ids = torch.zeros(1, TOKENS, dtype=torch.long, device="meta")
    mask = torch.ones(1, 1, TOKENS, TOKENS, dtype=torch.bool, device="meta")
    saved = torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x)
    with torch.device("meta"), _FastAttention(), FlopCounterMode(display=False) as counted, saved:
        made = module(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=1)
    total = sum(size for storage, size in kept.items() if storage not in own)
    del made  # which held what was kept: no number of a storage was used twice
    share = max(1.0, layers / TRACED) / TOKENS
    return total * share, counted.get_total_flops() * share


@functools.lru_cache
def machine_rates(device: str) -> dict[str, float]:
    """Return what this machine does a second, measured once and kept in the cache folder.

    Operations in "float32" and "bfloat16", bytes of "memory" and of "disk"; infinitely many for a
    device that is not here.
    """
    file = cache_folder() / f"rates-{platform.node()}-{device}.json"
    if file.is_file():
        with reading(file, "damaged; remove it"):
            return {name: float(rate) for name, rate in json.loads(file.read_text()).items()}
    n, data, scratch = 1024 if device == "cpu" else 8192, bytes(1 << 26), file.with_suffix(".tmp")

    def rate(amount: float, work: Callable[[], object]) -> float:
        return amount / median(repeat(work, number=1, repeat=7))

    try:
        A = torch.ones(n, n, device=device)
        half, wide = A.bfloat16(), A.repeat(8, 4) if device == "cpu" else A
        found = {  # `item` waits for an accelerator
            "float32": rate(2 * n**3, lambda: (A @ A)[0, 0].item()),
            "bfloat16": rate(2 * n**3, lambda: (half @ half)[0, 0].item()),
            "memory": rate(8 * wide.numel(), lambda: wide.neg_()[0, 0].item()),
            "disk": rate(len(data), lambda: write_whole(scratch, data)),
        }
    except (RuntimeError, AssertionError):
        return dict.fromkeys(("float32", "bfloat16", "memory", "disk"), math.inf)
    scratch.unlink()
    write_whole(file, json.dumps(found))
    return found


def training(
    size: Size,
    device: str,
    *,
    batch: int,
    longest: int,
    typical: float,
    steps: int,
    accumulation: int = 1,
    pairs: bool = False,
    keep: int = 0,
    optimizer: str = "adamw",
) -> Needs:
    """Return what fine-tuning a copy of a model takes, as `attacks` does it.

    The copy is in float32 (of LoRA the adapter alone), or with "adamw-8bit-bfloat16" as it is
    stored. The model stays, AdamW has two moments.
    Gradients come as activations go, unless batches are accumulated. Other devices than a CPU run
    each layer again for the backward pass, and CUDA computes in bfloat16.

    Parameters
    ----------
    longest, typical : int, float
        Tokens of a batch's longest row: at most, on average.
    pairs : bool
        DPO: rows are pairs, and there is a reference.
    keep : int
        Checkpoints kept on the way.
    """
    cpu, lora = device == "cpu", size.trained != size.parameters
    kind = optimizer.removesuffix("-bfloat16")
    width = 4 if lora or kind == optimizer else size.width
    tokens, gradients = batch * longest * (1 + pairs), width * size.trained
    moments = 2 * MOMENT[kind] * size.trained
    layer = tokens * size.kept / size.layers
    if cpu:
        left = tokens * (size.kept * (HOLES if lora else 1) + 4 * longest * size.layers)  # masks
    else:
        left = tokens * (size.width if lora else width) * size.hidden * size.layers + layer
    left += 0 if lora else width * size.hidden * size.words  # the head's gradient is the first
    left += 4 * (COPIES if cpu else 1) * min(tokens, TILE[0]) * min(size.words, TILE[1])
    if device == "cuda" and not lora and width == 4:
        left += 2 * size.parameters  # as autocast keeps them
    if accumulation == 1:
        left = max(left - gradients, layer)
    memory = {
        "weights": size.stored * lora + gradients,
        "gradients": gradients,
        "optimiser": moments,
        "activations": max(left, cpu * (size.stored - gradients - moments)),  # or what is read back
        "copies": size.stored + width * size.parameters * (pairs and not lora),
    }
    rate = machine_rates(device)
    half = size.width < 4 if lora else device == "cuda" or width < 4
    flops = size.flops * (3 - lora + (not cpu) + pairs) + 2 * size.hidden * size.words * (4 - lora)
    moved = 4 * size.kept + 20 * (COPIES if cpu else 1) * size.words
    a_token = flops / rate["bfloat16" if half else "float32"] + moved / rate["memory"]
    tokens = batch * accumulation * typical * (1 + pairs)
    seconds = steps * (tokens * a_token + (3 * gradients + 2 * moments) / rate["memory"])
    resume = gradients if seconds < SAVED_AFTER else 2 * (gradients + moments)  # two, for a moment
    seconds += 4 * size.stored / rate["disk"]
    return Needs(memory, seconds, size.stored * (1 + keep) + resume)


def answering(size: Size, device: str, prompts: int, tokens: int, batch: int | None) -> Needs:
    """Return what greedy answers of so many tokens take, as `generate_answers` makes them."""
    batch, rate = min(batch or (32 if device == "cpu" else 128), prompts), machine_rates(device)
    head = 2 * size.hidden * size.words
    memory = {
        "weights": size.stored,
        "cache": batch * (ASKED + tokens) * size.cached * (1 + 2 / size.layers),
        "activations": batch * (ASKED * size.kept / size.layers * size.width / 4 + 8 * size.words),
    }
    flops = rate["float32" if size.width == 4 else "bfloat16"]
    step = max(batch * (size.flops + head) / flops, size.stored / rate["memory"])
    seconds = math.ceil(prompts / batch) * (batch * ASKED * size.flops / flops + tokens * step)
    return Needs(memory, seconds + 2 * size.stored / rate["disk"])


def editing(model: str, verb: str, rank: int | None) -> Needs:
    """Return what "factor", "apply", "adapter" or "extrapolate" take; a rank of None is all."""
    folder, rate = _config_folder(model), machine_rates("cpu")
    if has_weights(folder):
        found = [(i.shape, i.dtype.itemsize) for i in Checkpoint(folder).tensors.values()]
    else:
        width = size_of(model).width
        found = [(W.shape, width) for W in skeleton(folder).parameters()]
    stored, width = sum(math.prod(s) * w for s, w in found), max(w for _, w in found)
    shapes = [s for s, _ in found if len(s) == 2]
    factors = 4.0 * sum(min(*s, rank or max(s)) * sum(s) for s in shapes)
    held, seconds, disk = 3 * width, 2 * stored / rate["disk"], factors
    if verb in ("factor", "extrapolate"):  # two float32 deltas; products with blocks, or all of SVD
        held, seconds = 8 + 2 * width, 4 * stored / rate["disk"]
        passes = [32 * (max(rank, 16) + 16) if rank else 24 * min(s) for s in shapes]
        products = sum(math.prod(s) * n for s, n in zip(shapes, passes, strict=True))
        seconds += products / rate["float32"]
    if verb in ("apply", "extrapolate"):
        seconds, disk = seconds + stored / rate["disk"], stored
    memory = {"matrices": held * max(map(math.prod, shapes)), "factors": factors}
    return Needs(memory, seconds, disk)
