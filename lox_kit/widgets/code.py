"""Calls that reproduce what a panel shows, as text to copy into a script."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from importlib import import_module

from lox_kit.judges import Judge
from lox_kit.measures import KINDS, Questions
from lox_kit.models import Prompt

OPTIONS = {"spectrum": "top", "include": None, "exclude": None, "certify": 16, "seed": 0}
ROOMS = ("", ".models", ".measures", ".attacks", ".landscape", ".studies", ".widgets")


def script(calls: str) -> str:
    """Return calls with the imports of what they use of lox_kit before them."""
    names = [node for node in ast.walk(ast.parse(calls)) if isinstance(node, ast.Name)]
    made = {name.id for name in names if isinstance(name.ctx, ast.Store)}
    missing = {name.id for name in names} - made
    imports = ""
    for room in ROOMS:
        found = missing.intersection(import_module(f"lox_kit{room}").__all__)
        missing -= found
        if found:
            imports += f"from lox_kit{room} import {', '.join(sorted(found))}\n"
    return f"{imports}\n{calls}"


def pair_call(info: Mapping) -> str:
    """Return the call that factors the subspace of this `info`.

    Raises
    ------
    ValueError
        If it is a control: `from_pair` does not make it.
    """
    if control := info.get("control"):
        raise ValueError(f"this is the control {control!r}; its code is the call that made it.")
    chosen = {n: info[n] for n, default in OPTIONS.items() if info[n] != default}
    options = "".join(f", {name}={value!r}" for name, value in chosen.items())
    pair = f"{str(info['base'])!r}, {str(info['aligned'])!r}"
    return f"SafetySubspace.from_pair({pair}, rank={info['rank']!r}{options})"


def questions_lines(questions: Questions, *, own: bool) -> str:
    """Return the lines that make these questions; their prompts are the sandbox's `own` or not."""
    options = {"judge": judge_name(questions.judge), "template": questions.template}
    options["max_new_tokens"] = questions.max_new_tokens
    if questions.helpful:
        options["helpful"] = judge_name(questions.helpful)
    chosen = "".join(f"    {name}={value!r},\n" for name, value in options.items())
    prompts = "    tuple(forbidden),\n    tuple(allowed),\n"
    return f"{kinds_lines(questions, own=own)}questions = Questions(\n{prompts}{chosen})\n"


def kinds_lines(questions: Questions, *, own: bool) -> str:
    """Return the lines that make the forbidden and the allowed prompts."""
    calls = {kind: prompts_call(kind, getattr(questions, kind), own=own) for kind in KINDS}
    return "".join(f"{kind} = {call}\n" for kind, call in calls.items())


def judge_name(judge: str | Judge) -> str:
    """Return what a call names a judge by."""
    return judge if isinstance(judge, str) else judge.name


def prompts_call(kind: str, prompts: Sequence[Prompt], *, own: bool) -> str:
    """Return the call that makes these prompts: the sandbox's `own` of a kind, or the list."""
    return f'sandbox_prompts("{kind}", "dev", {len(prompts)})' if own else prompt_lines(prompts)


def prompt_lines(prompts: Sequence[Prompt]) -> str:
    """Return a list of prompts as Python, one to a line."""
    return "[\n" + "".join(f"    {p!r},\n" for p in prompts) + "]"
