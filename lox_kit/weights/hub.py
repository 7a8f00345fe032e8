"""Hub ids, `org/name` or `org/name@revision`: a folder of the local hub cache, or a download."""

from __future__ import annotations

import contextlib
import functools
import re
from pathlib import Path

from .files import BESIDE, has_weights

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
WANTED = ["model*.safetensors", ADAPTER_WEIGHTS, *(f"*{kind}" for kind in BESIDE)]
_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*(@[\w./-]+)?")


def is_hub_id(name: str) -> bool:
    """Whether a name reads as a hub id and is not a folder here."""
    return bool(_ID.fullmatch(name)) and not Path(name).is_dir()


def fetch(name: str) -> Path:
    """Return the folder of a hub id: from the local cache, else downloaded into it.

    Only safetensors weights, configs and tokenizer files are fetched. HF_HUB_OFFLINE, HF_HUB_CACHE
    and HF_ENDPOINT are honoured, as huggingface_hub does. What is whole in the cache is taken
    without asking the hub: name a revision, or delete it there, for a newer one.

    Raises
    ------
    FileNotFoundError
        If it is neither cached nor downloadable, or has no safetensors weights.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise FileNotFoundError(
            f"{name}: no such folder, and hub ids need huggingface_hub: pip install "
            '"lox-kit[train]", or give a checkpoint folder.'
        ) from error
    repository, _, revision = name.partition("@")
    snapshot = functools.partial(
        huggingface_hub.snapshot_download,
        repository,
        revision=revision or None,
        allow_patterns=WANTED,
        ignore_patterns=["*/*"],  # other formats lie in folders of their own
    )
    with contextlib.suppress(FileNotFoundError):
        if _is_whole(folder := Path(snapshot(local_files_only=True))):
            return folder
    try:
        folder = Path(snapshot())
    except Exception as error:  # of whichever HTTP library it uses
        raise FileNotFoundError(_not_found(name, error)) from error
    if not has_weights(folder) and not (folder / ADAPTER_WEIGHTS).exists():
        raise FileNotFoundError(
            f"{name}: no whole safetensors weights in {folder}. Either an earlier download was cut "
            "off and the hub cannot be reached now, or it has pickled weights only, which are not "
            "read."
        )
    return folder


def _is_whole(folder: Path) -> bool:
    """Whether a cached snapshot needs nothing more: weights, config and a tokenizer."""
    if (folder / ADAPTER_CONFIG).exists():
        return (folder / ADAPTER_WEIGHTS).exists()
    names = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
    there = any((folder / n).exists() for n in names)
    return there and (folder / "config.json").exists() and has_weights(folder)


def _not_found(name: str, error: Exception) -> str:
    """Return one line on what was tried."""
    from huggingface_hub import constants

    tried = f"{name}: no such folder, and as a hub id not in {constants.HF_HUB_CACHE}"
    if constants.HF_HUB_OFFLINE:
        return f"{tried}; HF_HUB_OFFLINE forbids asking {constants.ENDPOINT}."
    reason = next(iter(str(error).splitlines()), "")
    return f"{tried} nor to be had from {constants.ENDPOINT} ({type(error).__name__}: {reason})."
