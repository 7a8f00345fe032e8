"""Calls that make what a panel was given, as text to copy into a script.

The subspace, what is asked, an attack, a metric; each panel's own calls are in its state.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from importlib import import_module

from lox_kit.attacks import ATTACKS, SETS, Attack, FileRows, file_attack
from lox_kit.judges import Judge
from lox_kit.landscape import Asr, Loss, Metric, RefusalMargin
from lox_kit.measures import KINDS, WORLDS, Questions
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
    cut = f".cut({info['cut']!r})" if "cut" in info else ""
    return f"SafetySubspace.from_pair({pair}, rank={info['rank']!r}{options}){cut}"


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
    """Return the call that makes these prompts: a world's of this kind, or the list."""
    for made in WORLDS.values() if prompts else ():
        if list(prompts) == made(kind, "dev", len(prompts)):
            return f'{made.__name__}("{kind}", "dev", {len(prompts)})'
    return prompt_lines(prompts)


def prompt_lines(prompts: Sequence[Prompt]) -> str:
    """Return a list of prompts as Python, one to a line."""
    return "[\n" + "".join(f"    {p!r},\n" for p in prompts) + "]"


def attack_call(attack: Attack) -> str:
    """Return the call that makes an attack.

    Raises
    ------
    ValueError
        If it comes neither from `find_attack` nor from `file_attack`.
    """
    lora = bool(attack.settings.lora_rank)
    options = {"lora": True} if lora else {}
    if attack.safe_fraction:
        options["safe_fraction"] = attack.safe_fraction
    preset = ATTACKS.get(attack.name)
    if preset and preset.source == attack.source:
        words = [f"find_attack({attack.name!r}"]
    elif isinstance(attack.source, FileRows) and attack.source.of not in SETS:
        file = attack.source
        preset = file_attack(file.of)
        words = [f"file_attack({file.of!r}, {file.columns!r}, form={file.form!r}"]
    else:
        raise ValueError(
            f"{attack.name}: code is written for find_attack's and file_attack's attacks."
        )
    own = vars(preset.lora if lora else preset.settings)
    options |= {name: v for name, v in vars(attack.settings).items() if v != own[name]}
    return ", ".join([*words, *(f"{n}={v!r}" for n, v in options.items())]) + ")"


def metric_call(metric: Metric) -> str:
    """Return the call that makes a metric.

    Raises
    ------
    ValueError
        If it is no `Asr`, `RefusalMargin` or `Loss`.
    """
    if not isinstance(metric, Asr | RefusalMargin | Loss):
        raise ValueError(f"{type(metric).__name__}: code is written for Asr, RefusalMargin, Loss.")
    prompts = prompts_call("forbidden", metric.prompts)
    judge = f", {judge_name(metric.by)!r}" if isinstance(metric, Asr) else ""
    rest = f", template={metric.template!r}, system={metric.system!r}"
    tokens = "" if isinstance(metric, Loss) else f", max_new_tokens={metric.max_new_tokens}"
    return f"{type(metric).__name__}({prompts}{judge}{rest}{tokens})"
