"""The calls that give what a dial shows, as text to copy into a script."""

from __future__ import annotations

from lox_kit.widgets.code import pair_call, prompt_lines, questions_lines, script


def dial_script(state) -> str:
    """Return the calls that give a dial's answers, and measure the alphas measured so far."""
    info, questions, at = state.subspace.info, state.questions, state.dial_place
    calls = f"""subspace = {pair_call(info)}
model = load_model({str(info["aligned"])!r})
dial = LoxDial(model, subspace)
dial.set({at.call(at.alpha)})
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
    dial.set({at.call("alpha")})
    drift = reference.compare(model).to_dict()
    points.append({{"alpha": alpha, **measure_shares(model, questions), "drift": drift}})
figures.save_figure({{"figure": "alpha", "k": {at.k}, "points": points}}, {state.figure_name!r})
"""
    return script(calls)
