"""Hub ids, `org/name` or `org/name@revision`: a folder of the local hub cache, or a download."""

from __future__ import annotations

import contextlib
import functools
import re
from pathlib import Path

from .files import SETTINGS, files_like, has_weights, shard_names

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
UNREAD = ("*.py", "LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*")  # never run or read here
WANTED = ["model*.safetensors", ADAPTER_WEIGHTS, "README.md", *UNREAD, *SETTINGS]
_ID = re.compile(  # as the hub names repositories: no "--" or "..", a letter or digit at each end
    r"(?![^@]*(--|\.\.))\w([\w.-]*\w)?/\w([\w.-]*\w)?(@[\w./-]+)?", re.ASCII
)


def is_hub_id(name: str) -> bool:
    """Whether a name reads as a hub id and is not a folder here."""
    return bool(_ID.fullmatch(name)) and not Path(name).is_dir()


def fetch(name: str) -> Path:
    """Return the folder of a hub id: from the local cache, else downloaded into it.

    Only safetensors weights and what belongs beside them are fetched. HF_HUB_OFFLINE, HF_HUB_CACHE
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
        ignore_patterns=["*/*[!a]"],  # other formats lie in folders; of these, only *.jinja
    )
    cached = None
    with contextlib.suppress(FileNotFoundError):
        # Asked for nothing: it may be whole for a model and lack other files of the repository.
        cached = Path(snapshot(allow_patterns=[], local_files_only=True))
        if _is_whole(cached):
            return cached
    try:
        folder = Path(snapshot(allow_patterns=WANTED))
        if others := [n for n in shard_names(folder) if not (folder / n).is_file()]:
            snapshot(allow_patterns=others)
    except Exception as error:  # of whichever HTTP library it uses
        if cached is None or not has_weights(cached):
            there = "not" if cached is None else "not whole"
            raise FileNotFoundError(_not_found(name, there, error)) from error
        folder = cached  # without a tokenizer, and the hub cannot be asked for one
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
    words = ("tokenizer.", "vocab.", "tekken.")  # tokenizer_config.json alone is no tokenizer
    there = any(
        f.name.startswith(words) or f.suffix in (".model", ".tiktoken")
        for f in files_like(folder, SETTINGS)
    )
    return there and (folder / "config.json").exists() and has_weights(folder)


def _not_found(name: str, there: str, error: Exception) -> str:
    """Return one line on what was tried; `there`, how far it is in the cache."""
    from huggingface_hub import constants

    tried = f"{name}: no such folder, and as a hub id {there} in {constants.HF_HUB_CACHE}"
    if constants.HF_HUB_OFFLINE:
        return f"{tried}; HF_HUB_OFFLINE forbids asking {constants.ENDPOINT}."
    reason = next(iter(str(error).splitlines()), "")
    return f"{tried} nor to be had from {constants.ENDPOINT} ({type(error).__name__}: {reason})."
