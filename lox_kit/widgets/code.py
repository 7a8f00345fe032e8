"""Calls that reproduce what a panel shows, as text to copy into a script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lox_kit.extrapolation import SafetySubspace
from lox_kit.judges import Judge
from lox_kit.models import Prompt

from .measures import Measures

OPTIONS = {"spectrum": "top", "include": None, "exclude": None, "certify": 16, "seed": 0}


def subspace_code(subspace: SafetySubspace, *names: str) -> str:
    """Return the import of these names of lox_kit, and the call that factors this subspace.

    Raises
    ------
    ValueError
        If it is a control: `from_pair` does not make it.
    """
    return f"""from lox_kit import {", ".join(sorted(["SafetySubspace", *names]))}

subspace = {pair_call(subspace.info)}
"""


def pair_call(info: Mapping) -> str:
    """Return the call that factors the subspace of this `info`; raise ValueError for a control."""
    if control := info.get("control"):
        raise ValueError(f"this is the control {control!r}; its code is the call that made it.")
    chosen = {n: info[n] for n, default in OPTIONS.items() if info[n] != default}
    options = "".join(f", {name}={value!r}" for name, value in chosen.items())
    pair = f"{str(info['base'])!r}, {str(info['aligned'])!r}"
    return f"SafetySubspace.from_pair({pair}, rank={info['rank']!r}{options})"


def dial_code(
    subspace: SafetySubspace,
    measures: Measures,
    *,
    own_prompts: bool,
    k: int,
    alpha: float,
    prompts: Sequence[Prompt],
    alphas: Sequence[float],
    figure: str,
) -> str:
    """Return the calls that give a dial's answers, and measure the alphas measured so far."""
    names = ["LoxDial", "load_model", "figures", *["sandbox_prompts"] * own_prompts]
    tokens = f"max_new_tokens={measures.max_new_tokens}"
    judge = judge_name(measures.judge)
    chosen = "".join(
        f"{kind} = {prompts_call(kind, getattr(measures, kind), own=own_prompts)}\n"
        for kind in ("forbidden", "allowed")
    )
    answers = f"""from lox_kit.models import Prompt, generate, render
from lox_kit.widgets import Measures, drift_fields

model = load_model({str(subspace.info["aligned"])!r})
dial = LoxDial(model, subspace)
dial.set(k={k}, alpha={alpha})
prompts = {prompt_lines(prompts)}
texts = render(model.tokenizer, prompts, template={measures.template!r})
answers = generate(model, texts, {tokens})
print(*answers, sep="\\n")
"""
    axis = f"""
{chosen}measures = Measures(forbidden, allowed, {judge!r}, {measures.template!r}, {tokens})
dial.off()
reference = measures.reference(model)
points = []
for alpha in {list(alphas)}:
    dial.set(k={k}, alpha=alpha)
    drift = drift_fields(reference.compare(model))
    points.append({{"alpha": alpha, **measures.shares(model), "drift": drift}})
figures.save_figure({{"figure": "alpha", "k": {k}, "points": points}}, {figure!r})
"""
    top, made = subspace_code(subspace, *names).split("\n\n", 1)
    first, rest = answers.split("\n\n", 1)
    return f"{top}\n{first}\n\n{made}{rest}{axis if alphas else ''}"


def judge_name(judge: str | Judge) -> str:
    """Return what a call names a judge by."""
    return judge if isinstance(judge, str) else judge.name


def prompts_call(kind: str, prompts: Sequence[Prompt], *, own: bool) -> str:
    """Return the call that makes these prompts: the sandbox's `own` of a kind, or the list."""
    return f'sandbox_prompts("{kind}", "dev", {len(prompts)})' if own else prompt_lines(prompts)


def prompt_lines(prompts: Sequence[Prompt]) -> str:
    """Return a list of prompts as Python, one to a line."""
    return "[\n" + "".join(f"    {p!r},\n" for p in prompts) + "]"
