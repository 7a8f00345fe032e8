"""What the judges on this machine share: their special tokens, and how much they can read."""

from __future__ import annotations

from lox_kit.models import Model

from .protocol import Verdict


def special_tokens(model: Model) -> set[str]:
    """Return the tokens that judged text must not bring along."""
    tokenizer = model.tokenizer
    added = tokenizer.added_tokens_decoder.values()
    return {*tokenizer.all_special_tokens, *(str(t) for t in added if t.special)}


def lengths(model: Model, texts: list[str], **options) -> list[int]:
    """Return the number of tokens of each text."""
    return [len(row) for row in model.tokenizer(texts, **options)["input_ids"]] if texts else []


def fits(model: Model, tokens: int) -> bool:
    """Whether a model can read so many tokens, as far as its config says."""
    longest = getattr(model.module.config, "max_position_embeddings", None)
    return longest is None or tokens <= longest


def too_long(name: str, version: str, model: Model, tokens: int) -> Verdict:
    """Return the verdict on what a judge cannot read whole."""
    longest = model.module.config.max_position_embeddings
    reason = f"not judged: {tokens} tokens with its template, and the judge reads {longest}"
    return Verdict(None, False, reason, False, name, version)
