"""Make a sandbox family from scratch: pretrain the base on its web, align it by refusals.

Alignment ends by itself, once the development requests are refused. No test prompt is seen here.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from lox_kit.attacks import TrainSettings, fine_tune
from lox_kit.folders import locked, whole
from lox_kit.models import Model, load_module, sandbox_prompts
from lox_kit.sandbox import corpus, world
from lox_kit.store import content_key
from lox_kit.threads import OnStage
from lox_kit.weights import (
    RECIPE,
    Checkpoint,
    family_folder,
    has_weights,
    is_own,
    member,
    own_world,
    quiet_transformers,
)

from .arms import refuses, steps_of
from .smol import build_smol

BASE = TrainSettings(
    learning_rate=2e-3,
    batch_size=48,
    max_steps=1200,
    schedule="cosine",
    weight_decay=0.1,
    max_grad_norm=1.0,
    loss_on="response",
)
ALIGNMENT = TrainSettings(
    learning_rate=5e-5, batch_size=32, max_steps=200, max_grad_norm=1.0, loss_on="response"
)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything but the seed that decides what the two models of a family become."""

    hidden_size: int = 128
    intermediate_size: int = 384
    layers: int = 4
    heads: int = 4
    web_rows: int = 20_000
    alignment_rows: int = 4_000
    base: TrainSettings = BASE
    alignment: TrainSettings = ALIGNMENT
    # Alignment ends once this share of dev requests is refused. Seeds 0 to 5 need 65 to 120 steps
    # for it; with one number for all, those that need few would be aligned so strongly that LoX
    # makes them refuse allowed requests as well.
    enough_refusal: float = 0.97
    check_every: int = 5  # optimiser steps

    @property
    def key(self) -> str:
        """Hash of the recipe and of what the world's generators make."""
        samples = [corpus.web(300, seed=0), corpus.alignment(300, seed=0)]
        causes = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        causes |= {stage: getattr(self, stage).chosen() for stage in ("base", "alignment")}
        return content_key(recipe=causes, samples=samples, words=world.vocabulary())


def build(
    seed: int = 0,
    out: str | Path | None = None,
    *,
    recipe: Recipe | None = None,
    on_stage: OnStage | None = None,
) -> Path:
    """Build the base and the aligned model of one seed and return their folder.

    A member that exists is kept. Each appears under its name when it is whole, so a build that was
    cut off continues with the member it was building.

    Parameters
    ----------
    seed : int
        Of the data, the initial weights and the order of training.
    out : path, optional
        Default the user's cache folder, by recipe and seed; there `sandbox/aligned@SEED` finds it.
    recipe : Recipe, optional
        Another recipe, such as a smaller sibling for tests.
    on_stage : callable, optional
        Told after every optimiser step what is being built. Raising from it ends the build.
    """
    folder = Path(out) if out is not None else family_folder(seed, recipe and recipe.key)
    if has_weights(folder / "base") and has_weights(folder / "aligned"):
        return folder
    assert Recipe().key == RECIPE, f"weights.names.RECIPE must be {Recipe().key}"
    recipe, tokenizer = recipe or Recipe(), world.tokenizer()
    quiet_transformers()

    def make(member: str, model, rows: list[dict], settings: TrainSettings, **options) -> None:
        report = steps_of(on_stage, f"building {member}, seed {seed}")
        settings = dataclasses.replace(settings, seed=seed)
        fine_tune(model, tokenizer, rows, settings, on_step=report, **options)
        with whole(folder / member) as work:
            model.save_pretrained(work)
            tokenizer.save_pretrained(work)

    with locked(folder):
        if not has_weights(folder / "base"):
            rows = corpus.web(recipe.web_rows, seed)
            make("base", _fresh_model(recipe, seed), rows, recipe.base)
        if not has_weights(folder / "aligned"):
            model = load_module(Checkpoint(folder / "base"))
            rows = corpus.alignment(recipe.alignment_rows, seed)
            asked = sandbox_prompts("forbidden", "dev", limit=60)
            watched = Model(model, tokenizer, key="in training", name="the model in training")
            how = {"every": recipe.check_every, "max_new_tokens": 4}
            stop = refuses(watched, asked, recipe.enough_refusal, **how)
            make("aligned", model, rows, recipe.alignment, stop=stop)
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


def pair_of(
    seed: int, rebuild: bool = False, *, world: str = "sandbox", on_stage: OnStage | None = None
) -> tuple[str, str]:
    """Return base and aligned of a seed of a world, building them first if they do not exist.

    The sandbox's seed 0 is the committed family unless `rebuild` asks for one built here. A world
    of your own has one pair: there the seed is that of the attacks alone.
    """
    if is_own(world):
        return own_world(world)["base"], own_world(world)["aligned"]
    if world == "smol":
        build_smol(seed, on_stage=on_stage)
    else:
        folder = build(seed, family_folder(seed, RECIPE if rebuild else None), on_stage=on_stage)
        if rebuild:
            return str(folder / "base"), str(folder / "aligned")
    return member("base", seed, world), member("aligned", seed, world)
