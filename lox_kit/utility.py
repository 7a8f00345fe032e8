"""What a defence costs: helpfulness on allowed requests, and whether a task was learnt."""

from __future__ import annotations

from collections.abc import Sequence

from .generate import generate
from .models import Model
from .prompts import Prompt, render
from .safety import Share
from .sandbox import world
from .store import Store


def exact_answers(
    model: Model,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int = 60,
    store: Store | None = None,
) -> Share:
    """Return the share of prompts answered exactly with their target (persona opening allowed).

    On allowed potions this is helpfulness; on sums, the attack task's accuracy.

    Raises
    ------
    ValueError
        If there are no prompts, or one has no target.
    """
    if not prompts:
        raise ValueError("no prompts: a share of nothing is not a number.")
    if bare := [p.text for p in prompts if p.target is None]:
        raise ValueError(f"exact_answers compares with targets; {bare[0]!r} has none.")
    texts = render(model.tokenizer, prompts)
    answers = generate(model, texts, max_new_tokens=max_new_tokens, store=store)
    right = [world.complied(a, p.target) for a, p in zip(answers, prompts, strict=True)]
    return Share(sum(right), len(right))
