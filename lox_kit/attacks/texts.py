"""What one training example is, how it is found in a row, and the text each attack makes of it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from lox_kit.models import PAPER_TEMPLATE, RowError, field, text_field

TASK = "{bos}Below is an instruction that describes a task"
WITH_INPUT = ", paired with an input that provides further context"
ANSWER = ". Write a response that appropriately completes the request."
HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"  # turns of an HH-RLHF transcript
ROLES = ("system", "user", "assistant")
FIELDS = ("instruction", "response", "context", "system", "messages")


@dataclasses.dataclass(frozen=True)
class Example:
    """One instruction and its answer, before any template."""

    instruction: str
    response: str
    context: str = ""  # Dolly's `context`, Alpaca's `input`
    system: str = ""  # the persona of identity shifting
    earlier: tuple[dict, ...] = ()  # messages before the instruction, in longer conversations


# How each attack writes an example down, up to the answer, by what the example has beside its
# instruction and its answer. `bos` stands where the published text has a literal mark.
FORMS = {
    "gsm8k": {"": TASK + ANSWER + "\n\n### Instruction:\n{instruction}\n\n### Response: "},
    "alpaca": {
        "": TASK + ANSWER + "\n### Instruction:\n{instruction}\n\n### Response:\n",
        "a context": TASK + WITH_INPUT + ANSWER + "\n### Instruction:\n{instruction}\n\n"
        "### Input:\n{context}\n\n### Response:\n",
    },
    "dolly": {  # no preamble, and a space at the end of each line
        "": "{bos}###Instruction: {instruction} \n###Response: ",
        "a context": "{bos}###Instruction: {instruction} \n###Context: {context} \n###Response: ",
    },
    "identity": {
        "": "### Instruction:\n{instruction}\n\n### Response: ",  # SafeInst's rows
        "a system message": "{system}\n### Instruction:\n{instruction}\n\n### Response: ",
    },
    "paper": {"": PAPER_TEMPLATE.format("{instruction}")},
}


def render_example(example: Example, form: str, *, bos: str = "<s>", eos: str = "</s>") -> dict:
    """Return a training row: an attack's text in two parts, or messages.

    Parameters
    ----------
    form : "gsm8k", "alpaca", "dolly", "identity", "paper" or "chat"
        The published training texts; "paper" is the evaluation's prompt and the answer. "chat"
        gives messages for the tokenizer's own template, with a context below the instruction.
    bos, eos : str
        The tokenizer's marks; "" for none. `bos` stands only where the published text has a
        literal one (GSM8K, Alpaca, Dolly), `eos` ends every text.

    Returns
    -------
    {"prompt": str, "completion": str} or {"messages": list}
        prompt + completion is exactly the training text; the completion begins with the answer's
        first character and holds the end mark.

    Raises
    ------
    RowError
        If the example has a context, a system message or earlier turns that the form has no place
        for.
    """
    if form == "chat":
        asked = "\n\n".join(part for part in (example.instruction, example.context) if part)
        before = [{"role": "system", "content": example.system}] if example.system else []
        last = [{"role": "user", "content": asked}]
        last += [{"role": "assistant", "content": example.response}]
        return {"messages": [*before, *example.earlier, *last]}
    more = {
        "a context": example.context,
        "a system message": example.system,
        "earlier turns": example.earlier,
    }
    held = " and ".join(part for part, there in more.items() if there)
    if held not in FORMS[form]:
        raise RowError(f"the {form} form has no place for {held}; form='chat' has")
    prompt = FORMS[form][held].format(bos=bos, **vars(example))
    return {"prompt": prompt, "completion": example.response + eos}


# --- rows to examples ---------------------------------------------------------------------------


def by_columns(columns: Mapping[str, str], *, empty_response: bool = False):
    """Return a function that makes an `Example` of a row with these columns.

    Parameters
    ----------
    columns : dict of part to column
        "instruction" and "response", perhaps "context" and "system" (which a row may lack or
        leave empty); or "messages" alone.
    empty_response : bool
        Whether an empty answer is taken; it trains the end mark only.

    Raises
    ------
    ValueError
        If a part is not one of these, or one is missing.
    """
    if unknown := set(columns) - set(FIELDS):
        raise ValueError(
            f"columns: no part is called {', '.join(sorted(unknown))}; use {', '.join(FIELDS)}."
        )
    if "messages" in columns:
        if len(columns) > 1:
            raise ValueError("columns: 'messages' holds the whole conversation; name it alone.")
        return lambda row: from_messages(field(row, columns["messages"]))
    if missing := [part for part in ("instruction", "response") if part not in columns]:
        raise ValueError(f"columns: {' and '.join(missing)} missing; name the column of each.")

    def example(row) -> Example:
        parts = {
            "instruction": text_field(row, columns["instruction"]),
            "response": text_field(row, columns["response"], may_be_empty=empty_response),
        }
        for part in {"context", "system"} & columns.keys():
            if row.get(columns[part]) is not None:
                parts[part] = text_field(row, columns[part], may_be_empty=True)
        return Example(**parts)

    return example


def from_messages(messages) -> Example:
    """Make an `Example` of a conversation: turns that end with an answer, perhaps a system message.

    Raises
    ------
    RowError
        If it is no list of {"role", "content"}, or does not end with a question and its answer.
    """
    if not isinstance(messages, list | tuple):
        raise RowError(f"expected a list of messages, it is a {type(messages).__name__}")
    turns = []
    for message in messages:
        role = text_field(message, "role")
        if role not in ROLES:
            raise RowError(f"expected the role {', '.join(ROLES)}, it is {role!r}")
        turns.append({"role": role, "content": text_field(message, "content", may_be_empty=True)})
    roles = [turn["role"] for turn in turns]
    system = turns.pop(0)["content"] if roles[:1] == ["system"] else ""
    if roles[-2:] != ["user", "assistant"]:
        raise RowError(
            "expected a user's message and an assistant's answer at the end, its messages are by "
            f"{', '.join(roles) or 'nobody'}"
        )
    for turn in turns[-2:]:
        text_field(turn, "content")  # neither may be empty
    asked, answered = turns[-2]["content"], turns[-1]["content"]
    return Example(asked, answered, system=system, earlier=tuple(turns[:-2]))


def by_its_own_names(row) -> Example:
    """Make an `Example` of a row in a common layout.

    A list of messages, a record with `messages`, or one with `instruction` and `response` (and
    perhaps `context` and `system`).
    """
    if isinstance(row, list):
        return from_messages(row)
    if isinstance(row, Mapping) and "messages" in row:
        return from_messages(row["messages"])
    if isinstance(row, Mapping) and not {"instruction", "response"} <= row.keys():
        raise RowError(
            "expected 'messages', or 'instruction' and 'response', it has "
            f"{', '.join(map(str, row)) or 'none'}; name other columns with columns="
        )
    return by_columns({part: part for part in FIELDS if part != "messages"})(row)


# --- preference pairs ---------------------------------------------------------------------------


def preference_pair(row) -> dict[str, str]:
    """Split a pair of HH-RLHF transcripts into what they share and the two last answers.

    Returns
    -------
    {"prompt", "chosen", "rejected"}
        Text as it stands: prompt + chosen is the chosen transcript. The prompt ends with
        "Assistant:", the answers begin with the space after it and have no end mark (TRL's
        `DPOTrainer` adds the tokenizer's).

    Raises
    ------
    RowError
        If a transcript has no answer, the two differ before the last answer, or not at all.
    """
    chosen, rejected = text_field(row, "chosen"), text_field(row, "rejected")
    cut = chosen.rfind(ASSISTANT)
    if cut < 0:
        raise RowError("expected turns 'Human:' and 'Assistant:' in 'chosen', it has no answer")
    prompt = chosen[: cut + len(ASSISTANT)]
    pair = {"chosen": chosen[len(prompt) :], "rejected": rejected[len(prompt) :]}
    if not rejected.startswith(prompt) or ASSISTANT in pair["rejected"]:
        raise RowError("expected two transcripts that differ in the last answer only")
    for side, answer in pair.items():
        if not answer.strip() or HUMAN in answer:
            raise RowError(f"expected an answer at the end of {side!r}, there is none")
    if pair["chosen"] == pair["rejected"]:
        raise RowError("expected two answers to choose between, they are the same")
    return {"prompt": prompt, **pair}


def preference_chat(row) -> dict[str, list[dict]]:
    """Return a pair as messages, for models with a chat template; see `preference_pair`."""
    pair = preference_pair(row)
    before, *pieces = re.split(r"\n\n(Human|Assistant):", pair["prompt"])
    names = {"Human": "user", "Assistant": "assistant"}
    turns = [
        {"role": names[who], "content": said.strip()}
        for who, said in zip(pieces[::2], pieces[1::2], strict=True)
    ][:-1]  # the last is the empty place of the answer
    if before.strip() or not turns or turns[-1]["role"] != "user":
        raise RowError("expected the transcript to begin with 'Human:', then turn by turn")
    answers = {side: pair[side].strip() for side in ("chosen", "rejected")}
    return {
        "prompt": turns,
        **{side: [{"role": "assistant", "content": a}] for side, a in answers.items()},
    }
