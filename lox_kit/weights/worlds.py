"""A world of your own: a TOML file with a pair of models, what they are asked, and its attacks."""

from __future__ import annotations

import tomllib
from pathlib import Path

from lox_kit.folders import reading

PARTS = ("test", "dev")
FIELDS = {"base": str, "aligned": str, "attacks": list, "test": dict}  # and those it may lack:
MORE = {"dev": dict, "judge": str, "template": str, "max_new_tokens": int}


def is_own(world: str) -> bool:
    """Whether a world is named by its file."""
    return world.endswith(".toml")


def _texts(values) -> bool:
    return all(isinstance(value, str) for value in values)


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
    with reading(file, "no TOML"):
        told = tomllib.loads(Path(file).read_text(encoding="utf-8-sig"))
    kinds = FIELDS | MORE
    wrong = FIELDS.keys() - told.keys()
    wrong |= {name for name, value in told.items() if not isinstance(value, kinds.get(name, ()))}
    if "attacks" not in wrong and not (told["attacks"] and _texts(told["attacks"])):
        wrong |= {"attacks"}
    for part in told.keys() & set(PARTS) - wrong:
        wrong |= {f"[{part}] {name}" for name in {"forbidden", "allowed"} ^ told[part].keys()}
        wrong |= {f"[{part}]"} if not _texts(told[part].values()) else set()
    if wrong:
        raise ValueError(
            f"{file}: {', '.join(sorted(wrong))} is missing, unknown or of another type; it takes "
            "base, aligned, a list of attacks, and [test] and [dev] with forbidden and allowed."
        )
    told = {"judge": "keyword", "template": "chat", "max_new_tokens": 60, **told}
    folder = Path(file).resolve().parent

    def beside(name: str, *, model: bool = False) -> str:
        there = folder / name
        return str(there) if there.is_file() or (model and there.is_dir()) else name

    told |= {name: beside(told[name], model=True) for name in ("base", "aligned")}
    told["attacks"] = [beside(name) for name in told["attacks"]]
    for part in filter(told.__contains__, PARTS):
        told[part] = {kind: beside(name) for kind, name in told[part].items()}
    return told
