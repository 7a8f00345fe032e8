"""Build the real small model's family: fetch the base, ask it, align it, measure both."""

from __future__ import annotations

import json
from pathlib import Path

from lox_kit.attacks import align, find_alignment
from lox_kit.folders import locked, write_whole
from lox_kit.models import Prompt, generate, load_model, render
from lox_kit.smol import rows
from lox_kit.store import Store, content_key
from lox_kit.threads import OnStage
from lox_kit.weights import (
    SMOL_RECIPE,
    Checkpoint,
    fetch_base,
    has_weights,
    member,
    smol_folder,
)

from .arms import steps_of

ALIGNMENT = "smol"


def recipe_key() -> str:
    """Return the hash of what decides what an aligned model becomes, but for base and seed."""
    preset = find_alignment(ALIGNMENT)
    made = {request: "It is told in a few words that are its own." for request in rows.asked()}
    samples = preset.rows(0, made)
    return content_key(settings=preset.settings.chosen(), method=preset.method, samples=samples)


def build_smol(
    seed: int = 0,
    source: str | Path = "index",
    *,
    store: Store | None = None,
    on_stage: OnStage | None = None,
) -> Path:
    """Make the base, its answers and the aligned model of one seed; return that one's folder.

    What exists is kept. What was cut off goes on by the same call: the base and its answers are
    one for all seeds, and the alignment resumes.

    Parameters
    ----------
    source : path or str
        Where the base comes from: "index", "hub" or a folder, see `fetch_base`.
    store : Store, optional
        Where answers are kept as they are made.

    Raises
    ------
    OSError, ValueError, ModuleNotFoundError
        If the base cannot be had, see `fetch_base`.
    """
    aligned, base = smol_folder("aligned", seed), smol_folder("base", seed)
    if has_weights(aligned):
        return aligned
    assert recipe_key() == SMOL_RECIPE, f"weights.names.SMOL_RECIPE must be {recipe_key()}"
    with locked(base.with_name("building")):
        if not has_weights(base):
            fetch_base(source, base, on_stage)
        model = load_model(member("base", seed, "smol"))
        if _answered_by() != model.key:
            _write_answers(model, store, on_stage)
    report = steps_of(on_stage, f"aligning smol, seed {seed}")
    return align(model, find_alignment(ALIGNMENT, seed=seed), aligned, on_step=report)


def _answered_by() -> str | None:
    """Return the key of the base whose answers are there."""
    file = rows.answers_file()
    return json.loads(file.read_text())["base"] if file.is_file() else None


def _write_answers(model, store: Store | None, on_stage: OnStage | None) -> None:
    """Ask the base all that its family learns from, and keep what it says."""
    asked = rows.asked()
    texts = render(model.tokenizer, [Prompt(request) for request in asked])
    how = {"max_new_tokens": rows.ANSWER_TOKENS, "store": store, "on_stage": on_stage}
    answers = dict(zip(asked, generate(model, texts, **how), strict=True))
    made = {"base": model.key, "base_name": Checkpoint("smol/base").name, "answers": answers}
    write_whole(rows.answers_file(), json.dumps(made, indent=0) + "\n")
