"""Batched greedy decoding, each answer kept in the store as its batch is finished."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from itertools import count

import torch

from lox_kit.store import Store, content_key
from lox_kit.threads import fitting_threads

from .load import Model

OnAnswers = Callable[[int, int], None]  # answers done, answers in all


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a model said, and in how large a batch.

    In float32 the batch does not matter, but for ties. In half precision another batch size rounds
    otherwise, and a greedy answer may turn where two tokens are nearly as likely.
    """

    text: str
    batch_size: int  # prompts decoded together, this one included


def generate(model: Model, texts: Sequence[str], **options) -> list[str]:
    """Return the greedy answer to each rendered prompt; see `generate_answers` for the options."""
    return [answer.text for answer in generate_answers(model, texts, **options)]


def generate_answers(
    model: Model,
    texts: Sequence[str],
    *,
    max_new_tokens: int = 60,
    batch_size: int = 128,
    store: Store | None = None,
    on_answers: OnAnswers | None = None,
) -> list[Answer]:
    """Return the greedy answer to each rendered prompt, with the batch size it was made in.

    Prompts of like length share a batch, padded on the left. A batch that does not fit into memory
    is halved (accelerate's `find_executable_batch_size`). With a store, only what it lacks is
    generated.

    Parameters
    ----------
    texts : sequence of str
        As `models.render` makes them: special tokens are in the text.
    max_new_tokens : int
        60 in the paper.
    batch_size : int
        Most prompts decoded together.
    """
    keys = [_answer_key(model, text, max_new_tokens) for text in texts]
    stored = store.get_many("answer", keys) if store else {}
    known = {key: Answer(**fields) for key, fields in stored.items()}
    todo = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
    in_order = sorted(todo, key=lambda key: len(todo[key]))
    if on_answers and known:
        on_answers(len(known), len(known) + len(todo))

    def keep(batch: list[str], answers: list[str]) -> None:
        size = len(batch)
        made = {key: Answer(text, size) for key, text in zip(batch, answers, strict=True)}
        known.update(made)
        if store:
            store.put_many("answer", {key: vars(answer) for key, answer in made.items()})
        if on_answers:
            on_answers(len(known), len(set(keys)))

    def run(size: int) -> None:
        left = [key for key in in_order if key not in known]  # all but the batches that fitted
        for start in range(0, len(left), size):
            batch = left[start : start + size]
            keep(batch, _decode(model, [todo[key] for key in batch], max_new_tokens))

    if in_order:
        with fitting_threads(model.module):
            _halving(run, min(batch_size, len(in_order)))
    return [known[key] for key in keys]


def _answer_key(model: Model, text: str, max_new_tokens: int) -> str:
    """Return the key of one answer: the weights, the text, how it is decoded and recorded."""
    how = {"greedy": True, "dtype": dtype_of(model), "record": "text, batch_size"}
    return content_key(model=model.key, text=text, tokens=max_new_tokens, **how)


def dtype_of(model: Model) -> str:
    """Return the dtype a model computes in, such as "float32"."""
    return str(next(model.module.parameters()).dtype).removeprefix("torch.")


def _halving(run: Callable[[int], None], size: int) -> None:
    """Call `run(size)`, and with half the size as long as that does not fit into memory."""
    from accelerate.utils import find_executable_batch_size
    from accelerate.utils.memory import should_reduce_batch_size

    try:
        return run(size)
    except RuntimeError as problem:
        if not should_reduce_batch_size(problem):
            raise
    # Not before it is needed: it starts by collecting garbage, which takes longer than an answer.
    halves = (size >> n for n in count(2))
    return find_executable_batch_size(run, size >> 1, halves.__next__)()


@torch.inference_mode()
def _decode(model: Model, texts: list[str], max_new_tokens: int) -> list[str]:
    """Return the greedy continuations of one batch."""
    tokenizer = model.tokenizer
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    # Padded here: a fast tokenizer remembers how it last padded, and saves that with a checkpoint.
    rows = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    gaps = [max(map(len, rows)) - len(row) for row in rows]
    ids = [[pad] * gap + list(row) for gap, row in zip(gaps, rows, strict=True)]
    mask = [[0] * gap + [1] * len(row) for gap, row in zip(gaps, rows, strict=True)]
    output = model.module.generate(
        input_ids=torch.tensor(ids, device=model.device),
        attention_mask=torch.tensor(mask, device=model.device),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        temperature=None,
        top_p=None,
        top_k=None,
        pad_token_id=pad,
    )
    return tokenizer.batch_decode(output[:, len(ids[0]) :], skip_special_tokens=True)
