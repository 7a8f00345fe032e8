"""Calls that reproduce what the dial shows, as text to copy into a script."""

from __future__ import annotations

from lox_kit.widgets.code import pair_call, prompt_lines, questions_lines, script


def dial_code(state) -> str:
    """Return the calls that give a dial's answers, and measure the alphas measured so far.

    Parameters
    ----------
    state : DialState

    Raises
    ------
    ValueError
        If the subspace is a control: `from_pair` does not make it.
    """
    info, questions, k = state.subspace.info, state.questions, state.setting.k
    calls = f"""subspace = {pair_call(info)}
model = load_model({str(info["aligned"])!r})
dial = LoxDial(model, subspace)
dial.set(k={k}, alpha={state.setting.alpha})
prompts = {prompt_lines([prompt for prompt, _ in state.shown()])}
texts = render(model.tokenizer, prompts, template={questions.template!r})
answers = generate(model, texts, max_new_tokens={questions.max_new_tokens})
print(*answers, sep="\\n")
"""
    if alphas := [point["alpha"] for point in state.curve["points"]]:
        calls += f"""
{questions_lines(questions)}dial.off()
reference = Reference(model, questions.allowed, **questions.how)
points = []
for alpha in {alphas}:
    dial.set(k={k}, alpha=alpha)
    drift = reference.compare(model).to_dict()
    points.append({{"alpha": alpha, **measure_shares(model, questions), "drift": drift}})
figures.save_figure({{"figure": "alpha", "k": {k}, "points": points}}, {state.figure_name!r})
"""
    return script(calls)
