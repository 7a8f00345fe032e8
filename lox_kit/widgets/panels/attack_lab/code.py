"""Calls that reproduce what the attack lab shows, as text to copy into a script."""

from __future__ import annotations

import dataclasses

from lox_kit.attacks import ATTACKS, SETS, Attack, FileRows, TrainSettings
from lox_kit.figures import run_title
from lox_kit.widgets.code import pair_call, questions_lines, script

from . import runs
from .table import is_there


def attack_lab_code(state) -> str:
    """Return the calls: both models attacked and measured on the way, for every run on screen.

    Parameters
    ----------
    state : AttackLabState

    Raises
    ------
    ValueError
        If an attack is neither a preset nor a file's, a run laid over is not of an attack or
        subspace as given to this panel, or the subspace is a control.
    """
    for record in state.laid_over:
        if not state.runs.is_as_given(record):
            raise ValueError(
                f"{run_title(record)}: this run's attack, with its data and settings, was not "
                "given to this panel, or another subspace was, so there is no code for it; open "
                "the panel with the attacks={...} and the subspace of that run, or take it off "
                "the list of what is laid over."
            )
    aligned, settings = str(state.runs.subspace.info["aligned"]), ""
    for run in [run for run in state.data["runs"] if is_there(run)] or state.data["runs"][:1]:
        choice = {n: v for n, v in run.items() if n != "arms"}
        attack = attack_call(state.runs.attack(runs.Choice.of(choice)))
        settings += f"    ({attack},\n     {choice!r}),\n"
    points = f"points={runs.POINTS}, task_prompts_per_point={runs.FEW}"
    where = "" if state.own_store else repr(str(state.runs.store.folder))
    return script(f"""subspace = {pair_call(state.runs.subspace.info)}
model = load_model({aligned!r})
store = Store({where})
{questions_lines(state.runs.questions)}settings = [
{settings}]
runs = []
for attack, run in settings:
    run["arms"] = {{}}
    for arm in ("aligned", "LoX"):
        start = arm_model(arm, model, subspace, run["k"], run["alpha"])
        route = plan_route(start, attack, questions, {points})
        run["arms"][arm] = route.go(store).to_dict()
    runs.append(run)
data = {{"figure": "attack_lab", "at": {state.at}, "runs": runs}}
figures.save_figure(data, {state.figure_name!r})
""")


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
        preset = ATTACKS["alpaca"]
        file = attack.source
        words = [f"file_attack({file.of!r}, {file.columns!r}, form={file.form!r}"]
    else:
        raise ValueError(
            f"{attack.name}: code is written for find_attack's and file_attack's attacks."
        )
    options |= _changed(attack.settings, preset.lora if lora else preset.settings)
    return ", ".join([*words, *(f"{n}={v!r}" for n, v in options.items())]) + ")"


def _changed(settings: TrainSettings, preset: TrainSettings) -> dict:
    """Return the fields that differ from the preset's."""
    fields = (f.name for f in dataclasses.fields(settings))
    return {n: getattr(settings, n) for n in fields if getattr(settings, n) != getattr(preset, n)}
