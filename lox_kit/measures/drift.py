"""Drift: how far a model's next-token distributions are from those of the aligned model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lox_kit.models import Model, Prompt, generate, render
from lox_kit.store import Store
from lox_kit.threads import fitting_threads

from .intervals import Mean

BATCH = 16  # texts read at once


@dataclasses.dataclass(frozen=True, eq=False)
class Drift:
    """Two models read the same text; how much their next-token distributions differ."""

    kl: tuple[float, ...]  # per prompt: KL(aligned || model), mean over its tokens, in nats
    top1: tuple[float, ...]  # per prompt: share of its tokens on which the likeliest one agrees

    @property
    def mean_kl(self) -> Mean:
        """KL per token in nats, each prompt weighing the same; 0, the least, is no drift."""
        mean = Mean.of(self.kl)
        return dataclasses.replace(mean, low=max(mean.low, 0.0))

    @property
    def agreement(self) -> Mean:
        """Share of tokens with the same likeliest one, each prompt weighing the same."""
        return Mean.of(self.top1)

    def to_dict(self) -> dict[str, float]:
        """Return the mean KL as plain data."""
        return dataclasses.asdict(self.mean_kl)


class Reference:
    """The aligned model's own greedy answers, and what it expects before every token of them.

    Parameters
    ----------
    aligned : Model
        May change afterwards, as a dial's model does: its log-probabilities are kept, on the CPU,
        one float32 per token of an answer and word of the vocabulary (60 answers of 60 tokens in a
        vocabulary of 32,000: 0.5 GB).
    prompts : sequence of Prompt
        Requests that a model should answer.

    Raises
    ------
    ValueError
        If there are no prompts.
    """

    def __init__(
        self,
        aligned: Model,
        prompts: Sequence[Prompt],
        *,
        template: str = "chat",
        max_new_tokens: int = 60,
        store: Store | None = None,
    ):
        if not prompts:
            raise ValueError("no prompts: a drift on nothing is not a number.")
        asked = render(aligned.tokenizer, prompts, template=template)
        answers = generate(aligned, asked, max_new_tokens=max_new_tokens, store=store)
        tokens = [
            aligned.tokenizer(texts, add_special_tokens=False)["input_ids"]
            for texts in (asked, answers)
        ]
        rows = list(zip(*tokens, strict=True))
        self.name, self._words = aligned.name, aligned.tokenizer.get_vocab()
        self._batches = [rows[i : i + BATCH] for i in range(0, len(rows), BATCH)]
        self._expected = [_log_probs(aligned, batch) for batch in self._batches]

    def compare(self, model: Model) -> Drift:
        """Return how far a model is from the reference.

        Teacher-forced: it reads each prompt with the reference's own answer, and is compared before
        every token of that answer and after its last. A model that would have said something else
        early on is not punished for all that follows.

        Raises
        ------
        ValueError
            If the vocabularies differ.
        """
        if model.tokenizer.get_vocab() != self._words:
            raise ValueError(
                f"{model.name} and {self.name} have different vocabularies: their distributions "
                "cannot be compared token by token."
            )
        found: list[tuple[float, float]] = []
        for batch, expected in zip(self._batches, self._expected, strict=True):
            found += map(_compare, expected, _log_probs(model, batch))
        return Drift(*zip(*found, strict=True))


def measure_drift(model: Model, aligned: Model, prompts: Sequence[Prompt], **options) -> Drift:
    """Compare a model with the aligned one, token by token, on benign prompts.

    Parameters
    ----------
    model, aligned : Model
        With one vocabulary; both in memory.
    **options
        See `Reference`.
    """
    return Reference(aligned, prompts, **options).compare(model)


def _compare(p: Tensor, q: Tensor) -> tuple[float, float]:
    """Return KL(p || q) and top-1 agreement of one answer's log-probabilities."""
    kl = (p.exp() * (p - q)).sum(-1).clamp(min=0)  # rounding: 0 can be -1e-8
    same = p.argmax(-1) == q.argmax(-1)
    return float(kl.mean()), float(same.float().mean())


@torch.inference_mode()
def _log_probs(model: Model, rows: list) -> list[Tensor]:
    """Return each row's log-probabilities before and after every answer token, on the CPU."""
    whole = [torch.tensor(asked + answer) for asked, answer in rows]
    # Padded on the right: no row reads past its own end.
    ids = pad_sequence(whole, batch_first=True).to(model.device)
    mask = pad_sequence([torch.ones_like(row) for row in whole], batch_first=True).to(model.device)
    with fitting_threads(model.module):
        logits = model.module(input_ids=ids, attention_mask=mask).logits
    return [
        logits[i, len(asked) - 1 : len(asked) + len(answer)].float().log_softmax(-1).cpu()
        for i, (asked, answer) in enumerate(rows)
    ]
