"""What a checkpoint is called: a folder, a hub id, a sandbox name, an adapter, BASE+ADAPTER."""

from __future__ import annotations

import re
from pathlib import Path

from lox_kit.folders import cache_folder

from .files import has_weights, read_object
from .hub import ADAPTER_CONFIG, fetch, is_hub_id

COMMITTED = Path(__file__).parents[1] / "sandbox" / "seed0"  # base and aligned of seed 0
# The key of `Recipe()`, by which every sandbox family but the committed one is built.
RECIPE = "2116278c8a28aa80b8009c6b92390bc9e1ad9ba4929a5673dd6a8f8966db0f2d"
WORLD = "lox_world"  # of tokenizer_config.json: whose requests a checkpoint is for
_NAME = re.compile(r"sandbox/(base|aligned)(?:@(\d+))?")


def family_folder(seed: int, recipe: str | None = None) -> Path:
    """Return where the family of a seed is, or will be built: `base/` and `aligned/` in it.

    Parameters
    ----------
    recipe : str, optional
        The key of the recipe that it is built by. Default: the committed family for seed 0, and
        the sandbox's own recipe for others.
    """
    if seed == 0 and recipe is None:
        return COMMITTED
    return cache_folder() / "sandbox" / (recipe or RECIPE)[:16] / f"seed{seed}"


def resolve(model: str | Path) -> Path:
    """Return the folder of a checkpoint path, hub id or sandbox name.

    Raises
    ------
    FileNotFoundError
        If a sandbox name's family has not been built, or a hub id cannot be found.
    ValueError
        If a name starts with sandbox/ and is not a sandbox name.
    """
    if not str(model).startswith("sandbox/"):
        return fetch(str(model)) if is_hub_id(str(model)) else Path(model)
    match = _NAME.fullmatch(str(model))
    if not match:
        raise ValueError(
            f"{model}: sandbox names are sandbox/base and sandbox/aligned, followed by @SEED "
            "for another seed than 0."
        )
    member, seed = match.group(1), int(match.group(2) or 0)
    folder = family_folder(seed) / member
    if not folder.exists():
        raise FileNotFoundError(
            f"{model}: this family is not built yet; `lox sandbox build --seed {seed}` builds it "
            "in a few minutes."
        )
    return folder


def member(name: str, seed: int) -> str:
    """Return the name of a family member, such as sandbox/aligned@3."""
    return f"sandbox/{name}@{seed}" if seed else f"sandbox/{name}"


def hub_ids(name: str) -> list[str]:
    """Return the repositories of the hub that a checkpoint's name names, without revisions.

    None for a folder or a sandbox name; two for BASE+ADAPTER, if both are of the hub.
    """
    parts = [] if Path(name).is_dir() else [part.strip() for part in name.rpartition("+")[::2]]
    return [
        part.partition("@")[0]
        for part in parts
        if is_hub_id(part) and not part.startswith("sandbox/")
    ]


def find(name: str) -> tuple[str | None, Path]:
    """Return the name of the base, None if it is a full checkpoint, and the folder.

    An adapter is an adapter's folder or hub id, whose config names the base, or `BASE+ADAPTER`
    with either of them a folder, hub id or sandbox name. A name that exists as a folder is that
    folder; any other is divided at its last `+`, so an ADAPTER given in this way has none.

    Raises
    ------
    FileNotFoundError, ValueError
        If a folder or hub id is not there, or the folder is not what its name promises.
    """
    if "+" in name and not Path(name).is_dir():
        base, _, adapter = (part.strip() for part in name.rpartition("+"))
        try:
            folder = resolve(adapter)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{name}: read as BASE+ADAPTER; {error}") from error
        if not (folder / ADAPTER_CONFIG).exists():
            raise FileNotFoundError(
                f"{name}: no such folder, and read as BASE+ADAPTER there is no {ADAPTER_CONFIG} in "
                f"{folder}."
            )
        return base, folder
    folder = resolve(name)
    if not (folder / ADAPTER_CONFIG).exists():
        return None, folder
    if has_weights(folder):
        raise ValueError(
            f"{name}: holds a full checkpoint and an adapter; move one of them to another folder."
        )
    config = read_object(folder / ADAPTER_CONFIG)
    base, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not base or not isinstance(base, str):
        raise ValueError(f"{name}: {ADAPTER_CONFIG} names no base; give BASE+{name}.")
    return base if not revision or Path(base).is_dir() else f"{base}@{revision}", folder
