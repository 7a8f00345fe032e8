"""The calls that give what a dial shows, as text to copy into a script."""

from __future__ import annotations

from lox_kit.widgets.code import pair_call, prompt_lines, questions_lines, script


def dial_script(state) -> str:
    """Return the calls that give a dial's answers, and measure the alphas measured so far."""
    info, questions, k = state.subspace.info, state.questions, state.setting.k
    calls = f"""subspace = {pair_call(info)}
model = load_model({str(info["aligned"])!r})
dial = LoxDial(model, subspace)
dial.set({_set_call(state, state.setting.alpha)})
prompts = {prompt_lines([prompt for prompt, _ in state.shown()])}
texts = render(model.tokenizer, prompts, template={questions.template!r})
answers = generate(model, texts, max_new_tokens={questions.max_new_tokens})
print(*answers, sep="\\n")
"""
    if alphas := [point["alpha"] for point in state.data["curve"]["points"]]:
        calls += f"""
{questions_lines(questions)}dial.off()
reference = Reference(model, questions.allowed, **questions.how)
points = []
for alpha in {alphas}:
    dial.set({_set_call(state, "alpha")})
    drift = reference.compare(model).to_dict()
    points.append({{"alpha": alpha, **measure_shares(model, questions), "drift": drift}})
figures.save_figure({{"figure": "alpha", "k": {k}, "points": points}}, {state.figure_name!r})
"""
    return script(calls)


def _set_call(state, alpha: float | str) -> str:
    """Return the arguments of `LoxDial.set` where a dial stands, at an alpha."""
    include = state.dial_place.include
    return f"k={state.setting.k}, alpha={alpha}" + (f", include={include!r}" if include else "")
