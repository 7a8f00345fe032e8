"""From rows of text to `input_ids` and `labels`: what a model reads, and which of it is learnt."""

from __future__ import annotations

from collections.abc import Sequence

from lox_kit.models import apply_template, start_mark

IGNORED = -100  # the label TRL and transformers leave out of the loss


def tokenize(tokenizer, rows: Sequence[dict], loss_on: str, max_length: int) -> dict[str, list]:
    """Render rows to text and tokenize them, every token labelled or only those of the answer.

    Truncation keeps the end, as the paper's training does. A token that holds the end of the
    prompt and the start of the answer (" answer" after "### Response:") belongs to the answer.

    Parameters
    ----------
    rows : sequence of dict
        Chat rows `{"messages": [{"role", "content"}, ...]}`, the last message the assistant's,
        rendered by the tokenizer's template, without the mark that ends it if the row says
        `"continue_final_message": True`; or text rows `{"prompt": str, "completion": str}`,
        special tokens written out. The mark that a tokenizer puts before every text is kept once
        (the published training texts write one and let a Llama tokenizer add a second).
    loss_on : "all" or "response"
        "response" gives every token before the last answer the label -100.

    Returns
    -------
    dict with "input_ids" and "labels", one list of int per row.

    Raises
    ------
    ValueError
        If `loss_on` is another word, a row is of neither form or does not end with an answer, or
        the template does not show where the answer begins.
    NotImplementedError
        If `loss_on` is "response" and the tokenizer is not a fast one.
    """
    if loss_on not in ("all", "response"):
        raise ValueError(f"loss_on={loss_on!r}: use 'all' or 'response'.")
    mark = start_mark(tokenizer)
    asked, full = [], []
    for i, row in enumerate(rows):
        try:
            prompt, whole = _render(tokenizer, row, mark)
        except ValueError as error:
            raise ValueError(f"row {i}: {error}") from error
        asked.append(prompt)
        full.append(whole)
    by_answer = loss_on == "response"
    made = tokenizer(full, add_special_tokens=False, return_offsets_mapping=by_answer)
    ids = [list(x) for x in made["input_ids"]]
    labels = [list(x) for x in ids]
    if by_answer:
        for prompt, spans, row in zip(asked, made["offset_mapping"], labels, strict=True):
            before = sum(end <= len(prompt) for _, end in spans)
            row[:before] = [IGNORED] * before
    return {
        "input_ids": [x[-max_length:] for x in ids],
        "labels": [y[-max_length:] for y in labels],
    }


def _render(tokenizer, row: dict, mark: str) -> tuple[str, str]:
    """Return a row's text up to its last answer, and the whole of it."""
    if isinstance(row.get("prompt"), str) and isinstance(row.get("completion"), str):
        prompt = mark + row["prompt"].removeprefix(mark)
        return prompt, prompt + row["completion"]
    if "messages" not in row:
        raise ValueError(
            f"has {', '.join(map(str, row)) or 'nothing'}; a row is either messages, or prompt and "
            "completion as text."
        )
    messages = row["messages"]
    roles = [message["role"] for message in messages]
    if roles[-1:] != ["assistant"]:
        raise ValueError(
            f"its messages are by {', '.join(roles) or 'nobody'}, but there is only something to "
            "learn from an assistant's answer at the end."
        )
    open_end = {"continue_final_message": True} if row.get("continue_final_message") else {}
    whole = apply_template(tokenizer, messages, **open_end)
    prompt = apply_template(tokenizer, messages[:-1], add_generation_prompt=True)
    if not whole.startswith(prompt):
        raise ValueError(
            "the tokenizer's chat template does not continue its own prompt, so there is no "
            "telling where the answer begins. Render the rows yourself to prompt and completion."
        )
    return prompt, whole
