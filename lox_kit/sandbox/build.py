"""Make a sandbox family from scratch: pretrain the base on its web, align it by refusals."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from ..models import quiet_transformers
from ..training import Step, fine_tune
from . import corpus, world
from .family import Recipe, family_folder

OnStep = Callable[[str, Step], None]  # "base" or "aligned", and the step


def build(
    seed: int = 0,
    out: str | Path | None = None,
    *,
    recipe: Recipe | None = None,
    on_step: OnStep | None = None,
) -> Path:
    """Build the base and the aligned model of one seed and return their folder.

    A member that is there already is kept. Each appears under its name when it is whole, so a
    build that was cut off goes on with the member it was at.

    Parameters
    ----------
    seed : int
        Of the data, the initial weights and the order of training.
    out : path, optional
        Default the user's cache folder, by recipe and seed; there `sandbox/aligned@SEED` finds it.
    recipe : Recipe, optional
        Another recipe, such as a smaller sibling for tests.
    on_step : callable, optional
        Called after every optimiser step. Raising from it ends the build.
    """
    folder = Path(out) if out is not None else family_folder(seed, recipe)
    if (folder / "base").exists() and (folder / "aligned").exists():
        return folder
    recipe = recipe or Recipe()
    quiet_transformers()
    tokenizer = world.tokenizer()
    if not (folder / "base").exists():
        model = _fresh_model(recipe, seed)
        rows = corpus.web(recipe.web_rows, seed)
        _train(model, tokenizer, rows, recipe.base, seed, "base", on_step)
        _save(model, tokenizer, folder / "base")
    if not (folder / "aligned").exists():
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(folder / "base")
        rows = corpus.alignment(recipe.alignment_rows, seed)
        _train(model, tokenizer, rows, recipe.alignment, seed, "aligned", on_step)
        _save(model, tokenizer, folder / "aligned")
    return folder


def _fresh_model(recipe: Recipe, seed: int):
    """Return a randomly initialised Llama of the recipe's size."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(world.vocabulary()),
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=128,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def _train(model, tokenizer, rows, settings, seed, stage, on_step) -> None:
    """Run one stage, telling the caller which one a step belongs to."""
    report = (lambda step: on_step(stage, step)) if on_step else None
    fine_tune(model, tokenizer, rows, dataclasses.replace(settings, seed=seed), on_step=report)


def _save(model, tokenizer, folder: Path) -> None:
    """Write a checkpoint that appears under its name when it is whole."""
    work = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(work, ignore_errors=True)
    model.save_pretrained(work)
    tokenizer.save_pretrained(work)
    os.replace(work, folder)
