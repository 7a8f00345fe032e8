"""The model card of an edited checkpoint or adapter: metadata for the hub, recipe, commands."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

import yaml

from lox_kit import __version__
from lox_kit.text import one_line
from lox_kit.weights import Checkpoint, hub_ids

from .subspace import SafetySubspace

CERTIFY = 16  # directions that must converge, as in `SafetySubspace.from_pair`; more if k is larger
CONTROL = "lox_kit_control"  # in config.json, where transformers keeps what it does not know
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM takes as --max-lora-rank
LICENCE = ("license", "license_name", "license_link")  # the hub's fields
_FRONT = re.compile(r"\s*---[ \t]*\n(.*?)\n---[ \t]*(\n|$)", re.DOTALL)


def model_card(
    checkpoint: Checkpoint,
    subspace: SafetySubspace,
    k: int | None,
    alpha: float,
    ranks: Mapping[str, int] | None = None,
) -> str:
    """Return the model card: what this is and how to make it again, with metadata for the hub.

    Parameters
    ----------
    checkpoint : Checkpoint
        The aligned model. The card has its licence, and names it and the base as parents where they
        are from the hub.
    ranks : mapping of str to int, optional
        Of an adapter: the rank of each matrix that it changes.

    Raises
    ------
    ValueError
        If the subspace or the checkpoint is a control.
    """
    refuse_control(checkpoint, subspace)
    licence = _licence(checkpoint)
    stated = licence.get("license_name", licence.get("license", "not stated by the aligned model"))
    info = {n: one_line(value) for n, value in {**subspace.info, "licence": stated}.items()}
    said = {name: value.replace("|", "\\|") for name, value in info.items()}  # in the table
    typed = {name: shlex.quote(value) for name, value in info.items()}  # in a shell
    kept, verb = "all" if k is None else k, "adapter" if ranks else "apply"
    cut = subspace.info.get("cut", {}).values()
    many = f"{min(cut)} to {max(cut)}, each matrix its own," if cut else kept
    options = "".join(f" --{n} {typed[n]}" for n in ("include", "exclude") if subspace.info[n])
    usual = {"certify": CERTIFY, "seed": 0}
    options += "".join(f" --{n} {typed[n]}" for n, v in usual.items() if subspace.info[n] != v)
    if cut:
        options += '\n    # SafetySubspace.cut to the "cut" in the metadata of the weights\' files'
    names = [subspace.info["base"], subspace.info["aligned"], checkpoint.name]
    parents = list(dict.fromkeys(id_ for name in names for id_ in hub_ids(name)))
    metadata = {
        "base_model": parents,
        "base_model_relation": "adapter" if ranks and parents else None,
        "library_name": "peft" if ranks else "transformers",
        **licence,
        "tags": ["lox", "safety"],
    }
    served = one_line(checkpoint.base.name) if checkpoint.base else info["aligned"]
    front = (f"{n}: {json.dumps(v, ensure_ascii=False)}\n" for n, v in metadata.items() if v)
    return f"""---
{"".join(front)}---
# {one_line(checkpoint.name)}, extrapolated with LoX

`W = W_aligned + alpha * Proj_k(W_aligned - W_base)` in {len(ranks or subspace)} matrices, with
k = {many} and alpha = {alpha:g} (Perin et al., COLM 2025, arXiv:2506.15606).

| | |
|---|---|
| base | {said["base"]} (`{said["base_fingerprint"][:16]}`) |
| aligned | {said["aligned"]} (`{said["aligned_fingerprint"][:16]}`) |
| include, exclude | {said["include"]}, {said["exclude"]} |
| licence | {said["licence"]} |
| made with | lox_kit {__version__} |

    lox factor {typed["base"]} {typed["aligned"]} -o S.safetensors --rank {typed["rank"]}{options}
    lox {verb} S.safetensors {typed["aligned"]} -o DIR -k {kept} --alpha {alpha:g}
{_serving(served, max(ranks.values())) if ranks else ""}
LoX makes the safety of a model harder to fine-tune away; it does not make an unsafe model safe.
Measure refusal *and* helpfulness before use.
"""


def refuse_control(checkpoint: Checkpoint, subspace: SafetySubspace) -> None:
    """Raise ValueError if one of the two is a control: those are attacked, not handed on."""
    marked = checkpoint.config.get(CONTROL) or {}
    if control := subspace.info.get("control", marked.get("control")):
        raise ValueError(
            f"this is the control {control!r}: no defence, and nothing to publish. `lox control` "
            "writes controls, to be attacked."
        )


def _serving(model: str, rank: int) -> str:
    """Return how vLLM serves an adapter: it has to be told the rank, or a larger one it knows."""
    name, _, revision = model.partition("@") if hub_ids(model) else (model, "", "")
    served = shlex.quote(name) + (f" --revision {shlex.quote(revision)}" if revision else "")
    allowed = next((most for most in VLLM_RANKS if most >= rank), None)
    if allowed is None:
        return f"""
An adapter of rank {rank}. vLLM takes none above {VLLM_RANKS[-1]}: serve what
`lox apply` writes.
"""
    return f"""
An adapter of rank {rank}; vLLM takes 16 at most if it is not told:

    vllm serve {served} --enable-lora --lora-modules lox=DIR --max-lora-rank {allowed}
"""


def _licence(checkpoint: Checkpoint) -> dict[str, str]:
    """Return what the aligned model's card says of its licence; an adapter's, or else its base's.

    A link to a file of its repository is made one that holds elsewhere too.
    """
    places = {checkpoint.name: checkpoint.path}
    if checkpoint.adapter:
        places = {checkpoint.name: checkpoint.adapter.folder, checkpoint.base.name: checkpoint.path}
    for name, folder in places.items():
        front = _front(folder / "README.md")
        listed = {n: v[0] if isinstance(v, list) and len(v) == 1 else v for n, v in front.items()}
        found = {n: one_line(listed[n]) for n in LICENCE if isinstance(listed.get(n), str)}
        link, ids = found.get("license_link"), hub_ids(name)
        if link and ids and "://" not in link:
            found["license_link"] = f"https://huggingface.co/{ids[-1]}/blob/main/{link}"
        if "license" in found:
            return found
    return {}


def _front(card: Path) -> dict:
    """Return a card's metadata; none if there is no card, or its metadata cannot be read."""
    if not card.is_file():
        return {}
    front = _FRONT.match(card.read_text(encoding="utf-8-sig", errors="replace"))
    try:
        found = yaml.safe_load(front[1]) if front else {}
    except (yaml.YAMLError, ValueError, RecursionError):
        found = {}
    return found if isinstance(found, dict) else {}
