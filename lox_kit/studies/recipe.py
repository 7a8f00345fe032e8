"""The recipe by which the sandbox models are built."""

from __future__ import annotations

import dataclasses

from lox_kit.attacks import TrainSettings
from lox_kit.sandbox import corpus, world
from lox_kit.store import content_key

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
    learning_rate=5e-5,
    batch_size=32,
    max_steps=200,
    max_grad_norm=1.0,
    loss_on="response",
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
    enough_refusal: float = 0.97  # alignment ends once this share of dev requests is refused
    check_every: int = 5  # optimiser steps

    @property
    def key(self) -> str:
        """Hash of the recipe and of what the world's generators make."""
        samples = [corpus.web(300, seed=0), corpus.alignment(300, seed=0)]
        causes = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        causes |= {stage: getattr(self, stage).chosen() for stage in ("base", "alignment")}
        return content_key(recipe=causes, samples=samples, words=world.vocabulary())
