"""What a checkpoint is called: a folder, a hub id, a name of a family, an adapter, BASE+ADAPTER."""

from __future__ import annotations

import re
from pathlib import Path

from lox_kit.folders import cache_folder

from .files import has_weights, read_object
from .hub import ADAPTER_CONFIG, fetch, is_hub_id

COMMITTED = Path(__file__).parents[1] / "sandbox" / "seed0"  # base and aligned of seed 0
# The key of `Recipe()`, by which every sandbox family but the committed one is built.
RECIPE = "2116278c8a28aa80b8009c6b92390bc9e1ad9ba4929a5673dd6a8f8966db0f2d"
# The key of what every smol/aligned is built by, see `studies.families`.
SMOL_RECIPE = "493b0f7d295337cdc201bbf4b4a5d38cd4618f2b2ac3348974af30af5eccdc60"
BUILDING = {
    "sandbox": "a few minutes",
    "smol": "about 12 minutes",
}  # families, and how long it takes
WORLD = "lox_world"  # of tokenizer_config.json: whose requests a checkpoint is for
_NAME = re.compile(r"(sandbox|smol)/(base|aligned|longer)(?:@(\d+))?")


def family_folder(seed: int, recipe: str | None = None) -> Path:
    """Return where the sandbox family of a seed is or will be built: `base/` and `aligned/` in it.

    Parameters
    ----------
    recipe : str, optional
        The key of the recipe that it is built by. Default: the committed family for seed 0, and
        the sandbox's own recipe for others.
    """
    if seed == 0 and recipe is None:
        return COMMITTED
    return cache_folder() / "sandbox" / (recipe or RECIPE)[:16] / f"seed{seed}"


def smol_folder(name: str, seed: int) -> Path:
    """Return where smol's base, which is one for all seeds, or another member is or will be."""
    root = cache_folder() / "smol"
    return root / name if name == "base" else root / SMOL_RECIPE[:16] / f"seed{seed}" / name


def resolve(model: str | Path) -> Path:
    """Return the folder of a checkpoint path, hub id or name of a family's member.

    Raises
    ------
    FileNotFoundError
        If a member that is named has not been built, or a hub id cannot be found.
    ValueError
        If a name starts with sandbox/ or smol/ and is neither a member's name nor a folder.
    """
    name = str(model)
    if match := _NAME.fullmatch(name):
        family, part, seed = match[1], match[2], int(match[3] or 0)
        folder = smol_folder(part, seed) if family == "smol" else family_folder(seed) / part
        if not folder.exists():
            again = f" --seed {seed}" if seed else ""
            raise FileNotFoundError(
                f"{name}: not built yet; `lox {family} build{again}` builds it in "
                f"{BUILDING[family]}."
            )
        return folder
    if _is_of_family(name) and not Path(name).is_dir():
        family = name.partition("/")[0]
        raise ValueError(
            f"{name}: {family} names are {family}/base and {family}/aligned, followed by @SEED "
            "for another seed than 0."
        )
    return fetch(name) if is_hub_id(name) else Path(name)


def _is_of_family(name: str) -> bool:
    """Whether a name begins as those of a family's members do."""
    return name.startswith(tuple(f"{family}/" for family in BUILDING))


def with_seed(name: str, seed: int) -> str:
    """Return the name of a family's member of this seed; any other name as it is."""
    match = _NAME.fullmatch(name)
    return member(match[2], seed, match[1]) if match else name


def member(name: str, seed: int, family: str = "sandbox") -> str:
    """Return the name of a family's member, such as sandbox/aligned@3 or smol/base."""
    one_for_all = (family, name) == ("smol", "base")
    return f"{family}/{name}@{seed}" if seed and not one_for_all else f"{family}/{name}"


def hub_ids(name: str) -> list[str]:
    """Return the repositories of the hub that a checkpoint's name names, without revisions.

    None for a folder or a member of a family; two for BASE+ADAPTER, if both are of the hub.
    """
    parts = [] if Path(name).is_dir() else [part.strip() for part in name.rpartition("+")[::2]]
    return [part.partition("@")[0] for part in parts if is_hub_id(part) and not _is_of_family(part)]


def find(name: str) -> tuple[str | None, Path]:
    """Return the name of the base, None if it is a full checkpoint, and the folder.

    An adapter is an adapter's folder or hub id, whose config names the base, or `BASE+ADAPTER`
    with either of them a folder, hub id or sandbox or smol name. A name that exists as a folder
    is that folder; any other is divided at its last `+`, so an ADAPTER given in this way has none.

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
