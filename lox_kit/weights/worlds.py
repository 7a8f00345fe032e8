"""A world of your own: a TOML file with a pair of models, what they are asked, and its attacks."""

from __future__ import annotations

import tomllib
from functools import lru_cache
from pathlib import Path

PARTS = ("test", "dev")
FIELDS = {"base", "aligned", "attacks", "judge", "template", "max_new_tokens", *PARTS}


def is_own(world: str) -> bool:
    """Whether a world is named by its file."""
    return world.endswith(".toml")


@lru_cache
def own_world(file: str) -> dict:
    """Return what a world's file says; files that it names lie beside it, or where they say.

    It has `base` and `aligned` (as verbs take them), `attacks` (names, or files of rows) and a
    table [test], perhaps [dev], of the files `forbidden` and `allowed`; perhaps `judge`, `template`
    and `max_new_tokens`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no TOML, lacks one of these or has another.
    """
    try:
        told = tomllib.loads(Path(file).read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: no TOML ({error}).") from error
    wrong = told.keys() - FIELDS | {"base", "aligned", "attacks", "test"} - told.keys()
    for part in filter(told.__contains__, PARTS):
        wrong |= {f"[{part}] {name}" for name in {"forbidden", "allowed"} ^ told[part].keys()}
    if wrong:
        raise ValueError(
            f"{file}: {', '.join(sorted(wrong))} is missing or unknown; it takes base, aligned, "
            "attacks, and [test] and [dev] with forbidden and allowed."
        )
    told = {"judge": "keyword", "template": "chat", "max_new_tokens": 60, **told}
    told["attacks"] = [_beside(file, name) for name in told["attacks"]]
    for name in ("base", "aligned"):
        told[name] = _beside(file, told[name])
    for part in filter(told.__contains__, PARTS):
        told[part] = {kind: _beside(file, name) for kind, name in told[part].items()}
    return told


def _beside(file: str, name: str) -> str:
    """Return a name, or the path of what has it in the folder of a world's file."""
    there = Path(file).resolve().parent / name
    return str(there) if there.exists() else name
