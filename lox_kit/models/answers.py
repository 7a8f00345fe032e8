"""Batched decoding, greedy or sampled, each answer kept in the store as its batch is finished."""

from __future__ import annotations

import copy
import dataclasses
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor

from lox_kit.store import MemoryStore, Store, content_key
from lox_kit.threads import OnStage, fitting_threads, tell

from .load import Model
from .prefixes import Tokens, pad_token, refuse_flat, running, with_heads
from .thoughts import THOUGHT_TOKENS

ANSWERING_ALONE = 100_000_000  # parameters: fewer answer faster on one thread of a busy machine
Key, Item, Made = TypeVar("Key"), TypeVar("Item"), TypeVar("Made")


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a model said, and in how large a batch.

    In float32 the batch does not matter, except for ties. In half precision another batch size
    rounds differently, and a greedy answer may change where two tokens are almost equally likely.
    """

    text: str
    batch_size: int  # prompts decoded together, this one included


def generate(model: Model, texts: Sequence[str], **options) -> list[str]:
    """Return the answer to each rendered prompt; see `generate_answers` for the options."""
    return [answer.text for answer in generate_answers(model, texts, **options)]


def generate_answers(
    model: Model,
    texts: Sequence[str],
    *,
    max_new_tokens: int = 60,
    shorter: Sequence[int] = (),
    batch_size: int | None = None,
    temperature: float = 0.0,
    seed: int = 0,
    store: Store | None = None,
    on_stage: OnStage | None = None,
    decode: Callable[[list[str]], list[tuple[str, ...]]] | None = None,
) -> list[Answer]:
    """Return the answer to each rendered prompt, with the batch size it was made in.

    Prompts of similar length share a batch, padded on the left. A batch that does not fit into
    memory is halved. With a store, only what is not in it is generated.

    Parameters
    ----------
    texts : sequence of str
        As `models.render` makes them: special tokens are in the text.
    max_new_tokens : int
        60 in the paper.
    shorter : sequence of int
        Token limits below that one, at which the same answers are put into the store as well: an
        answer begins with the shorter one.
    batch_size : int, optional
        Most prompts decoded together; default 32 on a CPU, where more is hardly faster and longer
        in coming, and 128 elsewhere. A stored answer counts in whatever batch it was made.
    temperature : float
        0 takes the likeliest token; above it tokens are drawn from all of softmax(logits / T).
    seed : int
        Of the draws. A text's draws depend on it and the text alone, not on its batch.
    on_stage : callable, optional
        Told ("answering") how many of the different prompts have an answer, and of how many.
    decode : callable, optional
        Answers a batch, each text at every limit: as here, by another way (`generate_likely`).

    Raises
    ------
    ValueError
        If the temperature is negative, infinite or NaN.
    """
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature={temperature}: use 0 (greedy) or a finite number above it.")
    drawn = {"temperature": temperature, "seed": seed} if temperature else {}
    how = {"greedy": not drawn, **drawn, "dtype": dtype_of(model), "record": "text, batch_size"}
    how["model"] = model.key
    store = store or MemoryStore()
    limits = [*sorted({n for n in shorter if n < max_new_tokens}), max_new_tokens]
    keys = {text: [content_key(text=text, tokens=n, **how) for n in limits] for text in texts}
    shape = {"text": str, "batch_size": int}
    found = store.get_many("answer", chain.from_iterable(keys.values()), shape)
    todo = {text: text for text, at in keys.items() if not found.keys() >= {*at}}
    done = len(keys) - len(todo)
    size = batch_size or (32 if model.device.type == "cpu" else 128)
    if done:
        tell(on_stage, "answering", done, len(keys))
    decode = decode or partial(_decode, model, limits, drawn)
    with fitting_threads(model.module, when_busy=ANSWERING_ALONE):
        for made in fitting_batches(todo, size, decode):
            at = (zip(keys[text], cuts, strict=True) for text, cuts in made.items())
            new = {k: vars(Answer(cut, len(made))) for k, cut in chain.from_iterable(at)}
            store.put_many("answer", new)
            found |= new
            done += len(made)
            tell(on_stage, "answering", done, len(keys))
    return [Answer(**found[keys[text][-1]]) for text in texts]


def dtype_of(model: Model) -> str:
    """Return the dtype a model computes in, such as "float32"."""
    return str(next(model.module.parameters()).dtype).removeprefix("torch.")


def fitting_batches(
    items: Mapping[Key, Item],
    size: int,
    run: Callable[[list[Item]], Sequence[Made]],
    length: Callable[[Item], int] = len,
) -> Iterator[dict[Key, Made]]:
    """Yield what `run` makes of the items, by key, a batch of like length at a time.

    A batch that does not fit into memory is halved. accelerate's decorator does this too, but
    collects garbage at every call, which takes longer than an answer.
    """
    left = sorted(items, key=lambda key: length(items[key]))  # stable: always these batches
    while left:
        batch = left[:size]
        try:
            made = run([items[key] for key in batch])
        except RuntimeError as error:
            from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

            if len(batch) == 1 or not should_reduce_batch_size(error):
                raise
            size = len(batch) // 2
            clear_device_cache(garbage_collection=True)
            continue
        yield dict(zip(batch, made, strict=True))
        left = left[size:]


def _decode(
    model: Model, limits: list[int], drawn: dict, texts: list[str]
) -> list[tuple[str, ...]]:
    """Return the continuations of one batch, each cut at every limit; the last is whole."""
    rows = model.tokenizer(texts, add_special_tokens=False)["input_ids"]
    draws = [_draws(texts, **drawn)] if drawn else []
    output = greedy(model, rows, limits[-1], draws)[:, max(map(len, rows)) :]
    cut = (decode(model.tokenizer, output[:, :n]) for n in limits)
    return list(zip(*cut, strict=True))


def decode(tokenizer, rows: Tensor | Sequence[Tokens]) -> list[str]:
    """Return the texts of rows of tokens, without special tokens but for the marks of a thought."""
    special = tokenizer.all_special_tokens
    if not any(mark in special for mark in THOUGHT_TOKENS):
        return tokenizer.batch_decode(rows, skip_special_tokens=True)
    hidden = set(tokenizer.convert_tokens_to_ids([t for t in special if t not in THOUGHT_TOKENS]))
    return tokenizer.batch_decode([[i for i in map(int, row) if i not in hidden] for row in rows])


def _draws(texts: list[str], temperature: float, seed: int) -> Callable:
    """Return what turns a batch's logits into scores whose largest is a draw (Gumbel's trick)."""
    seeds = [zlib.crc32(f"{seed} {text}".encode()) for text in texts]
    generators = [torch.Generator().manual_seed(s) for s in seeds]

    def scores(_, logits: Tensor) -> Tensor:
        waits = [torch.empty(logits.shape[-1]).exponential_(generator=g) for g in generators]
        return logits.float() / temperature - torch.stack(waits).log().to(logits.device)

    return scores


@torch.inference_mode()
def greedy(
    model: Model, rows: Sequence[Tokens], max_new_tokens: int, scores: Sequence = (), **options
):
    """Return what `generate` returns for rows of tokens: each followed by the likeliest tokens.

    `scores` are logits processors: with them, the tokens of the highest scores.

    Of the model's generation config only the tokens that end an answer are taken.

    Raises
    ------
    ValueError
        If a row of logits is NaN or all alike.
    """
    from transformers import GenerationConfig

    plain = copy.copy(model.module)  # the same weights, with settings of its own
    plain.generation_config = GenerationConfig(
        eos_token_id=model.module.generation_config.eos_token_id, pad_token_id=pad_token(model)
    )
    with running(model):
        ids, mask, cache = with_heads(model, rows)
        return plain.generate(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=cache,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            logits_processor=[refuse_flat, *scores],
            **options,
        )
