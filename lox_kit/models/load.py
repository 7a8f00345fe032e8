"""Models in memory: loaded by name, on the right device, and known by what made them."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path

import torch

from lox_kit.threads import importing
from lox_kit.weights import (
    WORLD,
    Checkpoint,
    check_sums,
    class_and_config,
    is_beside,
    read_object,
    refuse_code,
    refuse_nonfinite,
    transformers_for,
)

DEVICE = "LOX_KIT_DEVICE"  # where "auto" is: of this process and of those it starts
GENERATION = "generation_config.json"
LITTLE = 10_000_000  # values, which fit into memory whatever a config says
NEUTRAL = {  # settings of a generation config under which greedy decoding is the plain argmax
    **dict.fromkeys("repetition_penalty encoder_repetition_penalty guidance_scale".split(), 1.0),
    **dict.fromkeys("num_beams num_return_sequences".split(), 1),
    **dict.fromkeys("no_repeat_ngram_size encoder_no_repeat_ngram_size".split(), 0),
    **dict.fromkeys("min_length min_new_tokens".split(), 0),
    **dict.fromkeys(
        """max_time stop_strings bad_words_ids suppress_tokens sequence_bias
        begin_suppress_tokens forced_bos_token_id forced_eos_token_id penalty_alpha dola_layers
        exponential_decay_length_penalty watermarking_config""".split()
    ),
}


class IgnoredSettings(UserWarning):
    """A model's generation config asks for more than the greedy decoding that is measured."""


@dataclasses.dataclass(eq=False)
class Model:
    """A causal language model, its tokenizer, and the key its results are stored under."""

    module: torch.nn.Module  # a transformers causal LM, in eval mode
    tokenizer: object  # a transformers tokenizer
    key: str  # fingerprint of the checkpoint, or hash of the recipe that made the weights
    name: str  # for people
    beside: Mapping[str, Path] = dataclasses.field(default_factory=dict)  # see `Checkpoint`
    in_memory: bool = False  # weakened on purpose: no function writes it, or what it becomes

    def refuse_writing(self) -> None:
        """Raise ValueError if this model was weakened on purpose: it exists in memory alone."""
        if self.in_memory:
            raise ValueError(
                f"{self.name} was weakened on purpose and exists in memory alone: it is measured "
                "there, and neither written nor fine-tuned into a checkpoint."
            )

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.module.parameters()).device

    @property
    def world(self) -> str | None:
        """Whose requests, rules and attacks are meant for this model: see `world_of`."""
        said = getattr(self.tokenizer, "init_kwargs", {})
        return _world(said, self.tokenizer.get_vocab())

    @property
    def is_sandbox(self) -> bool:
        """Whether this model speaks the potion school's language, which the rule judge reads."""
        return self.world == "sandbox"


def world_of(model: str | Path) -> str | None:
    """Return the world of a checkpoint, as the files of its tokenizer say, or None.

    It is "sandbox" if its words are the potion school's, and "smol" for what was made from
    smol/base, whose tokenizer carries that name along.
    """
    folder = Checkpoint(model).tokenizer_folder
    files = [folder / "tokenizer_config.json", folder / "tokenizer.json"]
    said, words = [read_object(file) if file.is_file() else {} for file in files]
    return _world(said, (words.get("model") or {}).get("vocab") or {})


def _world(said: Mapping[str, object], words: Collection[str]) -> str | None:
    """Return the world that a tokenizer's config names, or that its words are of."""
    from lox_kit.sandbox import world

    if said.get(WORLD) == "smol":
        return "smol"
    ours = len(words) == len(world.vocabulary()) and all(w in words for w in world.FORBIDDEN)
    return "sandbox" if ours else None


def pick_device(device: str = "auto") -> str:
    """Return the accelerator of this machine ("cuda", "mps") or "cpu", or the one asked for.

    "auto" is the one that LOX_KIT_DEVICE names, if it is set.

    Raises
    ------
    ValueError
        If the one asked for is not available.
    """
    best = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    if device == "auto" and (device := os.environ.get(DEVICE) or "auto") == "auto":
        return str(best)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise ValueError(f"device={device!r} is not available here; use {best} or auto.") from None
    return device


def load_model(
    model: str | Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    device_map: str | dict | None = None,
) -> Model:
    """Load a checkpoint with its tokenizer, ready to generate.

    Answers are greedy, whatever its generation config sets: of that, only the tokens that end an
    answer are taken.

    Parameters
    ----------
    model : path or str
        Whatever `Checkpoint` takes. A LoRA adapter is merged into its base: the weights are those
        that `apply_lox` writes.
    dtype : str
        A torch dtype's name, or "auto" for the checkpoint's own.
    device_map : str or dict, optional
        Spread the layers over several accelerators as transformers does, such as "auto", in place
        of `device`.

    Raises
    ------
    FileNotFoundError, ValueError
        If the checkpoint is not whole (`Checkpoint`), damaged, holds code or NaN, or does not fit
        its config; or the device is not there, or a map leaves weights on disk.
    """
    checkpoint, place = Checkpoint(model), pick_device(device)
    with importing("transformers.modeling_utils"):
        tokenizer = load_tokenizer(checkpoint)
        module = load_module(checkpoint, device=place, dtype=dtype, device_map=device_map)
    config = module.generation_config
    found = {name: getattr(config, name, None) for name in NEUTRAL}
    if ignored := [f"{n}={v!r}" for n, v in found.items() if v not in (None, [], NEUTRAL[n])]:
        warnings.warn(
            f"{checkpoint.name}: answers are greedy, whatever its generation config sets: "
            f"{', '.join(ignored)} is left out.",
            IgnoredSettings,
            stacklevel=2,
        )
    return Model(module, tokenizer, checkpoint.fingerprint, checkpoint.name, checkpoint.beside)


def load_tokenizer(checkpoint: Checkpoint):
    """Return a checkpoint's tokenizer, without its weights; see `load_model`."""
    refuse_code(checkpoint.tokenizer_folder)
    with transformers_for(checkpoint.tokenizer_folder) as library:
        tokenizer = library.AutoTokenizer.from_pretrained(
            checkpoint.tokenizer_folder, trust_remote_code=False
        )
        tokenizer.decode(tokenizer("a")["input_ids"])  # some settings are read only then
        return tokenizer


def load_module(
    checkpoint: Checkpoint,
    *,
    device: str = "cpu",
    dtype: str = "auto",
    device_map: str | dict | None = None,
) -> torch.nn.Module:
    """Return a checkpoint's model in eval mode, every parameter from its files: `load_model`."""
    refuse_code(checkpoint.path)
    _refuse_damage(checkpoint)
    held = sum(info.size for info in checkpoint.tensors.values())
    described = sum(W.numel() for W in checkpoint.skeleton.parameters())
    if described > 10 * held + LITTLE:  # before room is made for what is missing
        raise ValueError(
            f"{checkpoint.name}: its config.json describes {described} values and its files hold "
            f"{held}; one of them is of another model. Download or copy it again."
        )
    with transformers_for(checkpoint.path) as library:
        made, config = class_and_config(library, checkpoint.path)
        source: Path | None = checkpoint.path
        tensors: dict[str, torch.Tensor] | None = None
        if checkpoint.adapter or checkpoint.quantised:  # other values than the files hold
            found = checkpoint.tensors.items()
            source, tensors = None, {n: checkpoint.read(n).to(i.written) for n, i in found}
        module, found = made.from_pretrained(
            source,
            config=config,
            state_dict=tensors,
            dtype=dtype if dtype == "auto" else getattr(torch, dtype),
            device_map=device_map,
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # reported, and refused below
            output_loading_info=True,
        )
        if source is None and (file := checkpoint.path / GENERATION).is_file():
            module.generation_config = library.GenerationConfig.from_dict(read_object(file))
    _refuse_gaps(checkpoint.name, found)
    end = module.generation_config.eos_token_id
    ends = end if isinstance(end, list) else [0 if end is None else end]
    if not all(type(token) is int and abs(token) < 1 << 31 for token in ends):
        raise ValueError(f"{checkpoint.name}: eos_token_id {end!r} in its configs is no number.")
    if any(W.is_meta for W in module.parameters()):
        raise ValueError(
            f"device_map={device_map!r} leaves weights of {checkpoint.name} on disk, where no edit "
            "reaches them: it does not fit these devices; use more of them, or a smaller dtype."
        )
    if device_map is None:
        module.to(device)
    module.eval()
    for name, W in module.state_dict().items():
        refuse_nonfinite(W, f"{name} in {checkpoint.name}, loaded as {W.dtype}")
    return module


def _refuse_damage(checkpoint: Checkpoint) -> None:
    """Raise if weights are not as lox_kit wrote them, as their checksums or a run's record say."""
    for file in {info.file for info in checkpoint.tensors.values()}:
        check_sums(file)
    for record in ("attack.json", "alignment.json"):
        file = checkpoint.path / record
        source = read_object(file).get("source") if file.is_file() else None
        said = source.get("weights") if isinstance(source, dict) else None
        if said not in (None, (checkpoint.base or checkpoint).weight_hashes):
            raise ValueError(
                f"{checkpoint.name}: its weights are not those that {record} says the run left. "
                "Remove the folder and the same call makes it again, or the file if you know why."
            )


def _refuse_gaps(name: str, found: dict) -> None:
    """Raise if a checkpoint and its config do not name the same parameters, of the same shapes."""
    shapes = [f"{n} {tuple(a)}, not {tuple(b)}" for n, a, b in found["mismatched_keys"]]
    kinds = {
        "missing": found["missing_keys"],
        "not in the architecture": [n for n in found["unexpected_keys"] if not is_beside(None, n)],
        "of another shape": shapes,
        "not readable": found["error_msgs"],
    }
    said = [
        f"{len(keys)} {kind} ({', '.join(sorted(keys)[:3])}{', ...' if len(keys) > 3 else ''})"
        for kind, keys in kinds.items()
        if keys
    ]
    if said:
        raise ValueError(
            f"{name}: its weights do not fit its config.json: {'; '.join(said)}. What is missing "
            "would be random, and measured. Download or copy it again."
        )
