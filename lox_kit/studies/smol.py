"""Build the real small model's family: fetch the base, ask it, align it, measure both."""

from __future__ import annotations

import dataclasses
import json
from itertools import groupby
from pathlib import Path

from lox_kit.attacks import align, find_alignment, fine_tune, save_model
from lox_kit.folders import locked, whole, write_whole
from lox_kit.measures import Share, world_questions
from lox_kit.models import Model, Prompt, generate, load_model, render
from lox_kit.smol import rows
from lox_kit.store import Store, content_key
from lox_kit.threads import OnStage
from lox_kit.weights import SMOL_RECIPE, fetch_base, has_weights, member, smol_folder

from .arms import refuses, steps_of

ALIGNMENT = "smol"


def recipe_key() -> str:
    """Return the hash of what decides what an aligned model becomes, but for base and seed."""
    preset = find_alignment(ALIGNMENT)
    answers = dict.fromkeys(rows.asked(), "What the base says is not known here.")
    samples = rows.alignment(200, 0, answers)
    return content_key(settings=preset.settings.chosen(), asked=rows.asked(), samples=samples)


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
        if not _has_answers(model):
            _write_answers(model, store, on_stage)
    report = steps_of(on_stage, f"aligning smol, seed {seed}")
    return align(model, find_alignment(ALIGNMENT, seed=seed), aligned, on_step=report)


def build_longer(seed: int, target: Share, *, on_stage: OnStage | None = None) -> Path:
    """Align a seed's model further, until it refuses as many allowed requests as `target`.

    The control for "it only refuses more": `smol/longer`. Development requests are asked, every
    five steps; after as many steps as the alignment itself had, it ends in any case. What exists
    is kept.
    """
    folder = smol_folder("longer", seed)
    if has_weights(folder):
        return folder
    model = load_model(member("aligned", seed, "smol"))
    preset = find_alignment(ALIGNMENT, seed=seed)
    settings = dataclasses.replace(preset.settings, schedule="constant", warmup_steps=0)
    asked = world_questions("smol", "dev")
    watched = {"on_step": steps_of(on_stage, f"aligning smol longer, seed {seed}")}
    watched["stop"] = refuses(model, asked.allowed, target.value, judges=["keyword"], **asked.how)
    with whole(folder) as work:
        fine_tune(model.module, model.tokenizer, preset.rows(seed), settings, **watched)
        save_model(model.module, model.tokenizer, work)
    return folder


def _has_answers(base: Model) -> bool:
    """Whether the answers that are there are this base's, to all that is asked."""
    file = rows.answers_file()
    made = json.loads(file.read_text()) if file.is_file() else {}
    return made.get("base") == base.key and made["answers"].keys() == {*rows.asked()}


def _write_answers(model: Model, store: Store | None, on_stage: OnStage | None) -> None:
    """Ask the base all that its family learns from, and keep what it says."""
    answers = {}
    for limit, pairs in groupby(rows.asked().items(), lambda pair: pair[1]):
        asked = [request for request, _ in pairs]
        texts = render(model.tokenizer, [Prompt(request) for request in asked])
        how = {"max_new_tokens": limit, "store": store, "on_stage": on_stage}
        answers |= zip(asked, generate(model, texts, **how), strict=True)
    made = {"base": model.key, "answers": answers}
    write_whole(rows.answers_file(), json.dumps(made, indent=0) + "\n")
