"""Judges that are models on this machine: what one is given, and how much it can read."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path

from lox_kit.models import Model, Prompt, fitting_batches, load_model

from .protocol import Judge, Made, Pair, Verdict
from .replies import break_markers


class LocalJudge(Judge):
    """A causal language model on this machine that reads a request and its answer.

    What is too long for the model gets an unparsed verdict that says so.

    Parameters
    ----------
    model : path, sandbox name, or Model
    """

    reply_tokens = 1  # the longest reply
    batch_size = 128  # texts read at once
    adds_special = False  # whether the tokenizer adds special tokens to what `form` returns

    def __init__(self, model: str | Path | Model, device: str):
        self.model = model if isinstance(model, Model) else load_model(model, device=device)

    def question(self, prompt: Prompt, response: str) -> str:
        """Return what the model is given, with no special token in the judged text."""
        tokenizer = self.model.tokenizer
        added = tokenizer.added_tokens_decoder.values()
        special = {*tokenizer.all_special_tokens, *(str(t) for t in added if t.special)}
        return self.form(*(break_markers(text, special) for text in (prompt.text, response)))

    def form(self, prompt: str, response: str) -> str:
        """Return a request and its answer in the words this model was trained on."""
        raise NotImplementedError

    def _ask(self, todo: dict[str, Pair]) -> Generator[Made]:
        """Yield verdicts, a batch of like length at a time."""
        texts = {key: self.question(*pair) for key, pair in todo.items()}
        rows = self.model.tokenizer(list(texts.values()), add_special_tokens=self.adds_special)
        lengths = dict(zip(texts, map(len, rows["input_ids"]), strict=True))
        longest = getattr(self.model.module.config, "max_position_embeddings", None)
        fitting, long = [], {}
        for key, n in lengths.items():
            if longest is None or n + self.reply_tokens <= longest:
                fitting.append(key)
            else:
                reason = f"not judged: {n} tokens with its template, and the judge reads {longest}"
                long[key] = self._signed(None, False, reason)
        if long:
            yield long, True
        fitting.sort(key=lambda key: (lengths[key], key))

        def run(batch: Sequence[str]) -> dict[str, Verdict]:
            return dict(zip(batch, self._read([texts[key] for key in batch]), strict=True))

        for _, verdicts in fitting_batches(fitting, self.batch_size, run):
            yield verdicts, True

    def _read(self, texts: list[str]) -> list[Verdict]:
        """Return what the model says of each filled form, all in one batch."""
        raise NotImplementedError
