"""Greedy answers in few passes: likely answers are checked at once instead of word by word.

Over a landscape most prompts are answered in one of a few ways. Their first token is decoded; then
the draft that begins with it is put through the model in one pass. What every argmax confirms is
the greedy answer, and only from where a draft fails is the rest generated token by token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from lox_kit.threads import fitting_threads

from .answers import decode, fitting_batches, generate, greedy
from .load import Model
from .prefixes import Tokens, positions, prefill


def answer(
    model: Model,
    texts: Sequence[str],
    drafts: Sequence[Sequence[Tokens]],
    *,
    max_new_tokens: int,
    batch_size: int = 128,
) -> list[str]:
    """Return the greedy answer to each rendered prompt, as `generate` does.

    Which drafts there are changes the time only, up to ties within a floating-point rounding. A
    batch that does not fit into memory is halved.

    Parameters
    ----------
    texts : sequence of str
        As `models.render` makes them.
    drafts : one sequence per text
        Likely answers as token ids, the end-of-text token included.
    """
    prompts = model.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    asked = dict(enumerate(zip(prompts, drafts, strict=True)))
    run, found = partial(_greedy, model, max_new_tokens), {}
    with fitting_threads(model.module):
        for answers in fitting_batches(asked, batch_size, run, lambda pair: len(pair[0])):
            found |= answers
    return decode(model.tokenizer, [found[i] for i in asked])


def generate_likely(
    model: Model, texts: Sequence[str], likely: Mapping[str, Sequence[str]], **options
) -> list[str]:
    """Return the greedy answer to each rendered prompt, soon where it is a likely one.

    Parameters
    ----------
    likely : mapping of str to sequence of str
        Answers to expect, by their text: those of the same model a little changed.
    **options
        `max_new_tokens` and `store`, as `generate` takes them.
    """

    def decode(batch: list[str]) -> list[tuple[str]]:
        drafts = [token_drafts(model, likely.get(text, ()), text) for text in batch]
        limit = options["max_new_tokens"]
        return [(a,) for a in answer(model, batch, drafts, max_new_tokens=limit)]

    return generate(model, texts, decode=decode, **options)


def token_drafts(model: Model, answers: Sequence[str], prompt: str = "") -> list[Tokens]:
    """Return answers as tokens, each followed by the end of text.

    They are tokenized after a space, as words mostly are, unless the rendered `prompt` ends in
    white space; where a model writes other tokens, the draft fails and the answer is generated.
    """
    ends, space = _ends(model), "" if prompt[-1:].isspace() else " "
    texts = [space + a.strip() for a in answers]
    if not texts:
        return []
    rows = model.tokenizer(texts, add_special_tokens=False)["input_ids"]
    return [list(row) + ends[:1] for row in rows]


def _ends(model: Model) -> Tokens:
    """Return the tokens that end an answer."""
    end = model.module.generation_config.eos_token_id
    return [] if end is None else [end] if isinstance(end, int) else list(end)


@torch.inference_mode()
def _greedy(model: Model, limit: int, asked: list[tuple[Tokens, Sequence[Tokens]]]) -> list[Tokens]:
    """Return the greedy continuations of prompts with drafts, at most `limit` tokens each."""
    ends, (prompts, drafts) = _ends(model), zip(*asked, strict=True)
    logits, cache, mask = prefill(model, prompts)
    answers = [[t] for t in logits.argmax(-1).tolist()]
    chosen = {
        i: draft[:limit]
        for i, first in enumerate(answers)
        if (draft := next((d for d in drafts[i] if d[:1] == first and len(d) > 1), None))
    }
    if chosen and limit > 1:
        rows = list(chosen)
        cache.batch_select_indices(torch.tensor(rows, device=mask.device))
        confirmed = _check(model, mask[rows], cache, list(chosen.values()))
        answers = [confirmed[rows.index(i)] if i in chosen else a for i, a in enumerate(answers)]
    answers = [_until_end(a, ends)[:limit] for a in answers]
    open_ = [i for i, a in enumerate(answers) if a[-1] not in ends and len(a) < limit]
    if open_:
        begun = [prompts[i] + answers[i] for i in open_]
        longer = greedy(model, begun, limit)[:, max(map(len, begun)) :].tolist()
        for i, rest in zip(open_, longer, strict=True):
            answers[i] = _until_end(answers[i] + rest, ends)[:limit]
    return answers


def _check(model: Model, mask: Tensor, cache, drafts: list[Tokens]) -> list[Tokens]:
    """Return of each draft what the model confirms, and its own token where it first differs."""
    width = max(map(len, drafts)) - 1  # what follows the last token is not asked
    fed = [(d + [d[-1]] * width)[:width] for d in drafts]
    fed = torch.tensor(fed, device=mask.device)
    whole = torch.cat([mask, torch.ones_like(fed)], dim=1)
    out = model.module(
        input_ids=fed,
        attention_mask=whole,
        position_ids=positions(whole)[:, -width:],
        past_key_values=cache,
    )
    said = out.logits.argmax(-1).tolist()
    confirmed = []
    for draft, own in zip(drafts, said, strict=True):
        n = next((i for i, t in enumerate(draft[1:]) if t != own[i]), len(draft) - 1)
        confirmed.append(draft[: n + 1] + own[n : min(n + 1, len(draft) - 1)])
    return confirmed


def _until_end(tokens: Tokens, ends: Tokens) -> Tokens:
    """Return the tokens up to the first that ends an answer."""
    last = next((i for i, t in enumerate(tokens) if t in ends), len(tokens))
    return tokens[: last + 1]
