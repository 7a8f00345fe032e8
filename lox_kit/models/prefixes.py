"""Prompts put through a model: padded, and a head that several share only once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import signature

import torch
from torch import Tensor

from .load import Model

Tokens = list[int]


WORTH = 512  # tokens that need not go through the model, below which they go through at once


@contextmanager
def running(model: Model) -> Iterator[None]:
    """Say of an error of the model's own code which model it was; one of memory stays as it is.

    Some values of a config are read only when the model runs.
    """
    try:
        yield
    except Exception as error:
        from accelerate.utils.memory import should_reduce_batch_size

        if should_reduce_batch_size(error):
            raise
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise ValueError(f"{model.name}: cannot answer ({said}).") from error


def prefill(model: Model, prompts: Sequence[Tokens]) -> tuple[Tensor, object, Tensor]:
    """Put prompts through the model, a head that several share only once.

    Returns
    -------
    logits (prompts, vocabulary) of the next token, the key-value cache, and its attention mask.
    """
    with running(model):
        ids, mask, cache = with_heads(model, prompts, worth=1)
        head = cache.get_seq_length() if cache else 0
        out = model.module(
            input_ids=ids[:, head:],
            attention_mask=mask,
            position_ids=positions(mask)[:, head:],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return refuse_flat(None, out.logits[:, -1]), out.past_key_values, mask


def with_heads(model: Model, prompts: Sequence[Tokens], worth: int = WORTH):
    """Put what prompts begin with through the model, each different head once.

    Templates begin alike, and so do requests in the same phrasing. Padding stands between a head
    and what follows it: positions count no padding, where a model is told them.

    Returns
    -------
    ids and mask, both (prompts, tokens), and the key-value cache of the heads; None if that saves
    fewer tokens than are `worth` it, or the model cannot be given positions or the cache of others.
    """
    from transformers.cache_utils import DynamicLayer  # keys and values of every token, row by row

    head, saved = _shared_head(prompts)
    heads = {tokens: i for i, tokens in enumerate(dict.fromkeys(tuple(p[:head]) for p in prompts))}
    cache = None
    if head and saved >= worth and "position_ids" in signature(model.module.forward).parameters:
        first = torch.tensor(list(heads), device=model.device)
        cache = model.module(input_ids=first, use_cache=True, logits_to_keep=1).past_key_values
    if not (cache and all(type(layer) is DynamicLayer for layer in cache.layers)):
        return *padded_left(model, prompts), None
    of_row = torch.tensor([heads[tuple(p[:head])] for p in prompts], device=model.device)
    cache.batch_select_indices(of_row)
    ids, mask = padded_left(model, [p[head:] for p in prompts])
    ids = torch.cat([first[of_row], ids], dim=1)
    return ids, torch.cat([mask.new_ones(len(prompts), head), mask], dim=1), cache


def _shared_head(prompts: Sequence[Tokens]) -> tuple[int, int]:
    """Return after how many tokens to cut, so that the fewest go through; and how many that saves.

    One token of each prompt is left to go through.
    """
    shortest = min(map(len, prompts))
    saved = [(len(prompts) - len({tuple(p[:h]) for p in prompts})) * h for h in range(shortest)]
    return saved.index(max(saved)), max(saved)


def padded_left(model: Model, rows: Sequence[Tokens]) -> tuple[Tensor, Tensor]:
    """Return token ids and attention mask of rows that all end at the right.

    Padded here: a fast tokenizer remembers how it last padded, and saves that with a checkpoint.
    """
    gaps = [max(map(len, rows)) - len(row) for row in rows]
    ids = [[pad_token(model)] * gap + list(row) for gap, row in zip(gaps, rows, strict=True)]
    mask = [[0] * gap + [1] * len(row) for gap, row in zip(gaps, rows, strict=True)]
    return torch.tensor(ids, device=model.device), torch.tensor(mask, device=model.device)


def pad_token(model: Model) -> int:
    """Return the token that fills a row; no attention is paid to it."""
    own = (model.tokenizer.pad_token_id, model.tokenizer.eos_token_id)
    rows = len(model.module.get_input_embeddings().weight)  # a token that was added may have none
    return next((token for token in own if token is not None and token < rows), 0)


def positions(mask: Tensor) -> Tensor:
    """Return each token's position, as `generate` counts it: padding does not count."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


def refuse_flat(_, logits: Tensor) -> Tensor:
    """Return a model's logits, or raise if a row is NaN or all alike: argmax then means nothing."""
    low, high = logits.aminmax(dim=-1)
    if not bool((high > low).all()):
        raise ValueError(
            "the model's logits are NaN or all alike, so it answers nothing, which looks safe: its "
            "config does not fit its weights, or its dtype overflows (try dtype='float32')."
        )
    return logits
