"""Calls that reproduce what a panel shows, as text to copy into a script."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from importlib import import_module

from lox_kit.judges import Judge
from lox_kit.measures import KINDS, Questions
from lox_kit.models import Prompt, sandbox_prompts

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


def questions_lines(questions: Questions) -> str:
    """Return the lines that make these questions."""
    values = [prompts_call(kind, getattr(questions, kind)) for kind in KINDS]
    values += [f"judge={judge_name(questions.judge)!r}"]
    values += [f"{name}={value!r}" for name, value in questions.how.items()]
    if questions.helpful:
        values.append(f"helpful={judge_name(questions.helpful)!r}")
    return "questions = Questions(\n" + "".join(f"    {value},\n" for value in values) + ")\n"


def judge_name(judge: str | Judge) -> str:
    """Return what a call names a judge by."""
    return judge if isinstance(judge, str) else judge.name


def prompts_call(kind: str, prompts: Sequence[Prompt]) -> str:
    """Return the call that makes these prompts: the sandbox's of this kind, or the list."""
    if prompts and list(prompts) == sandbox_prompts(kind, "dev", len(prompts)):
        return f'sandbox_prompts("{kind}", "dev", {len(prompts)})'
    return prompt_lines(prompts)


def prompt_lines(prompts: Sequence[Prompt]) -> str:
    """Return a list of prompts as Python, one to a line."""
    return "[\n" + "".join(f"    {p!r},\n" for p in prompts) + "]"
