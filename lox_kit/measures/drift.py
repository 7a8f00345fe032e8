"""Drift: how far a model's next-token distributions are from those of the aligned model."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

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
        self.name, self._words = aligned.name, aligned.tokenizer.get_vocab()
        self._rows = list(zip(*tokens, strict=True))
        self._expected = list(_log_probs(aligned, self._rows))

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
        kl, top1 = [], []
        for p, q in zip(self._expected, _log_probs(model, self._rows), strict=True):
            divergence = (p.exp() * (p - q)).sum(-1).clamp(min=0)  # rounding: 0 can be -1e-8
            kl.append(float(divergence.mean()))
            top1.append(float((p.argmax(-1) == q.argmax(-1)).float().mean()))
        return Drift(tuple(kl), tuple(top1))


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


@torch.inference_mode()
def _log_probs(model: Model, rows: list) -> Iterator[Tensor]:
    """Yield each row's log-probabilities before and after every answer token, on the CPU."""
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        whole = [torch.tensor(asked + answer) for asked, answer in batch]
        # Padded on the right: no row reads past its own end.
        ids = pad_sequence(whole, batch_first=True).to(model.device)
        mask = pad_sequence(list(map(torch.ones_like, whole)), batch_first=True).to(model.device)
        with fitting_threads(model.module):
            logits = model.module(input_ids=ids, attention_mask=mask).logits
        for i, (asked, answer) in enumerate(batch):
            said = logits[i, len(asked) - 1 : len(asked) + len(answer)]
            yield said.float().log_softmax(-1).cpu()
        del logits, said  # before the next batch needs the memory
