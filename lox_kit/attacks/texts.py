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
SHAREGPT = {"human": "user", "gpt": "assistant"}  # its names for two of them
FIELDS = ("instruction", "response", "context", "system", "messages")
LAYOUTS = (  # columns, each of one role's text, or of messages
    {"messages": ""},
    {"conversations": ""},
    {"prompt": "user", "completion": "assistant"},
)
SIDES = ("chosen", "rejected")
ALIKE = "expected two answers to choose between, they are the same"


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
    "text": {"": "{instruction}"},
}


def render_example(example: Example, form: str, *, bos: str = "<s>", eos: str = "</s>") -> dict:
    """Return a training row: an attack's text in two parts, or messages.

    Parameters
    ----------
    form : "gsm8k", "alpaca", "dolly", "identity", "paper", "text" or "chat"
        The published training texts; "paper" is the evaluation's prompt and the answer, "text" the
        instruction as it stands and the answer. "chat" gives messages for the tokenizer's own
        template, with a context below the instruction.
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
        If it is no list of {"role", "content"}, or ShareGPT's {"from", "value"}, or does not end
        with a question and its answer.
    """
    turns = _said(messages)
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


def _turn(message) -> dict[str, str]:
    """Return one message as {"role", "content"}."""
    names = ("role", "content")
    if isinstance(message, Mapping) and "from" in message and "role" not in message:
        names = ("from", "value")
    role = text_field(message, names[0])
    role = SHAREGPT.get(role, role)
    if role not in ROLES:
        raise RowError(f"expected the role {', '.join(ROLES)}, it is {role!r}")
    return {"role": role, "content": text_field(message, names[1], may_be_empty=True)}


def _said(value, role: str = "") -> list[dict]:
    """Return a list of messages, or with a role the text of one message by it, as messages."""
    if role and isinstance(value, str):
        value = [{"role": role, "content": value}] if value else []
    if not isinstance(value, list | tuple):
        kind = "text or a list" if role else "a list"
        raise RowError(f"expected {kind} of messages, it is a {type(value).__name__}")
    return [_turn(message) for message in value]


def by_its_own_names(row) -> Example:
    """Make an `Example` of a row in a common layout.

    A list of messages; a record with `messages`, or ShareGPT's `conversations` (and perhaps
    `system`); TRL's `prompt` and `completion`, each a text or a list of messages; or `instruction`
    and `response` or Alpaca's `output` (and perhaps `context` or `input`). All may have `system`.
    """
    if isinstance(row, list):
        return from_messages(row)
    names = {*row} if isinstance(row, Mapping) else set()
    earlier = row.get("history") if names else None
    if "messages" not in names and str(earlier or "").strip() not in ("", "[]"):
        raise RowError("earlier turns in 'history' are not read: write all turns as 'messages'")
    if layout := next((parts for parts in LAYOUTS if parts.keys() <= names), None):
        turns = _said(row.get("system") or "", "system")
        for name, role in layout.items():
            turns += _said(row[name], role)
        return from_messages(turns)
    answers = [name for name in ("response", "output") if name in names]
    contexts = [name for name in ("context", "input") if name in names]
    if names and ("instruction" not in names or len(answers) != 1 or len(contexts) > 1):
        raise RowError(
            "expected 'messages', 'conversations', 'prompt' and 'completion', or 'instruction' and "
            "'response' or 'output' (and 'context' or 'input'), it has "
            f"{', '.join(map(str, row))}; name other columns with columns="
        )
    columns = {"instruction": "instruction", "system": "system"}
    columns["response"] = answers[0] if answers else "response"
    columns["context"] = contexts[0] if contexts else "context"
    return by_columns(columns)(row)


# --- preference pairs ---------------------------------------------------------------------------


def preference_pair(row) -> dict[str, str]:
    """Return a preference pair as text: what both share, and the two answers.

    Parameters
    ----------
    row : dict
        {"prompt", "chosen", "rejected"}, taken as it stands; or two transcripts, "chosen" and
        "rejected", as HH-RLHF has them.

    Returns
    -------
    {"prompt", "chosen", "rejected"}
        prompt + chosen is the chosen text. Of transcripts the prompt ends with "Assistant:" and
        the answers begin with the space after it. There is no end mark (TRL's `DPOTrainer` adds
        the tokenizer's).

    Raises
    ------
    RowError
        If a transcript has no answer, the two differ before the last answer, or not at all; if
        both answers repeat the prompt.
    """
    chosen, rejected = (text_field(row, side) for side in SIDES)
    if row.get("system"):
        raise RowError("a pair as text has no place for a 'system' message; a chat template has")
    if "prompt" in row:
        pair = {"prompt": text_field(row, "prompt"), "chosen": chosen, "rejected": rejected}
        if chosen.startswith(pair["prompt"]) and rejected.startswith(pair["prompt"]):
            raise RowError("expected answers alone, both begin with the prompt")
    else:
        pair = _split(chosen, rejected)
    if pair["chosen"] == pair["rejected"]:
        raise RowError(ALIKE)
    return pair


def _split(chosen: str, rejected: str) -> dict[str, str]:
    """Split two transcripts at the last answer."""
    cut = chosen.rfind(ASSISTANT)
    if cut < 0:
        raise RowError(
            "expected a 'prompt', or turns 'Human:' and 'Assistant:' in 'chosen', it has no answer"
        )
    prompt = chosen[: cut + len(ASSISTANT)]
    pair = {"chosen": chosen[len(prompt) :], "rejected": rejected[len(prompt) :]}
    if not rejected.startswith(prompt) or ASSISTANT in pair["rejected"]:
        raise RowError("expected two transcripts that differ in the last answer only")
    for side, answer in pair.items():
        if not answer.strip() or HUMAN in answer:
            raise RowError(f"expected an answer at the end of {side!r}, there is none")
    return {"prompt": prompt, **pair}


def preference_chat(row) -> dict[str, list[dict]]:
    """Return a preference pair as messages, for models with a chat template.

    Parameters
    ----------
    row : dict
        As `preference_pair` takes it, where prompt and answers may be lists of messages as well;
        the answers may then be whole conversations, which begin with the prompt if there is one.

    Raises
    ------
    RowError
        As `preference_pair`.
    """
    answers = [field(row, side) for side in SIDES]
    before = _said(row.get("system") or "", "system")
    if all(isinstance(part, str) for part in (row.get("prompt", ""), *answers)):
        row = preference_pair({name: part for name, part in row.items() if name != "system"})
    asked = row.get("prompt") or ""
    if isinstance(asked, str) and asked.endswith(ASSISTANT):
        asked, answers = _turns_of(asked), [text_field(row, side).strip() for side in SIDES]
    chosen, rejected = (from_messages(before + _whole(asked, answer)) for answer in answers)
    if dataclasses.replace(rejected, response=chosen.response) != chosen:
        raise RowError("expected two conversations that differ in the last answer only")
    if rejected == chosen:
        raise RowError(ALIKE)
    *turns, first = render_example(chosen, "chat")["messages"]
    return {
        "prompt": turns,
        "chosen": [first],
        "rejected": [first | {"content": rejected.response}],
    }


def _turns_of(transcript: str) -> list[dict]:
    """Return the turns of an HH-RLHF transcript whose last answer is empty."""
    before, *pieces = re.split(r"\n\n(Human|Assistant):", transcript)
    names = {"Human": "user", "Assistant": "assistant"}
    turns = [
        {"role": names[who], "content": said.strip()}
        for who, said in zip(pieces[::2], pieces[1::2], strict=True)
    ][:-1]
    if before.strip() or not turns or turns[-1]["role"] != "user":
        raise RowError("expected the transcript to begin with 'Human:', then turn by turn")
    return turns


def _whole(asked, answer) -> list[dict]:
    """Return the conversation of a prompt and an answer, which may hold the prompt already."""
    asked, answer = _said(asked, "user"), _said(answer, "assistant")
    if not answer or answer[0]["role"] == "assistant":
        return asked + answer
    if not all(turn in answer for turn in asked):
        raise RowError("expected answers alone, or conversations that begin with the prompt")
    return answer
