"""Figures: what is on the axes, and files that do not change by themselves."""

import copy
import json
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest

import lox_kit
from lox_kit import energy_map_data, figures, spectrum_data, widgets
from lox_kit.extrapolation import ORDER
from lox_kit.figures import attacks as attack_plots
from lox_kit.figures import defences as defence_plots
from lox_kit.figures import rank as rank_plots
from lox_kit.measures.intervals import Share, share_fields


def share(count):
    return share_fields(Share(count, 20))


def measured(step=0, **counts):
    """Return made-up measures, each of 20; `step` more of every one."""
    return {"measures": {name: share(count + step) for name, count in counts.items()}}


DEFENCES = {  # two arms over two seeds
    "figure": "defences",
    "rows": [
        {"seed": seed, "arm": arm, "attack": attack}
        | measured(seed, **{m: 4 + 3 * i for i, m in enumerate(defence_plots.MEASURES)})
        for seed in (0, 1)
        for arm in ("aligned", "LoX")
        for attack in (None, "arithmetic")
    ],
}
ALPHA = {
    "figure": "alpha",
    "k": 6,
    "points": [
        {"alpha": a, "asr": share(10 - int(5 * a)), "refusal": share(10), "helpfulness": share(20)}
        for a in (0.0, 0.5, 1.0)
    ],
}
ATTACK_TABLE = {  # two attacks of two arms over two seeds, one under its persona as well
    "figure": "attack_table",
    "rows": [
        {"attack": attack, "training": training, "arm": arm, "seed": seed}
        | measured(asr=3 + 4 * i + seed, helpfulness=18 + i, **{m: 11 + i for m in more})
        for attack, training, more in (
            (None, "full", ()), ("mixed", "full", ()), ("persona", "LoRA", ["persona_asr"])
        )
        for i, arm in enumerate(("aligned", "LoX"))
        for seed in (0, 1)
    ],
}  # fmt: skip
EPOCHS = {
    "figure": "epochs",
    "attack": "mixed",
    "lines": [
        {
            "model": model,
            "learning_rate": rate,
            "points": [{"step": s} | measured(s, asr=0, helpfulness=1, task=2) for s in (0, 5, 10)],
        }
        for model in ("sandbox/aligned", "sandbox/aligned + LoX")
        for rate in (1e-4, 4e-4)
    ],
}


def lab_run(attack, k, **ways):
    """Return a run of the attack lab, of each model how many steps were made and its ASR."""
    settings = {"training": "full", "learning_rate": 4e-4, "steps": 4, "seed": 0, "alpha": 1.0}
    arms = {
        arm: {
            "losses": [1.0 / (s + 1) for s in range(steps)],
            "points": [
                {"step": s} | measured(asr=count, helpfulness=20) for s in (0, 2, 4) if s <= steps
            ],
        }
        for arm, (steps, count) in ways.items()
    }
    return {"attack": attack, "k": k, **settings, "arms": arms}


ATTACK_LAB = {  # two runs; of the second one LoX was cancelled at its first step
    "figure": "attack_lab",
    "at": 3,
    "runs": [
        lab_run("mixed", 6, aligned=(4, 15), LoX=(4, 2)),
        lab_run("sums", 3, aligned=(4, 9), LoX=(1, 1)),
    ],
}
RANKS = {  # two pairs; the second was measured at fewer ranks
    "figure": "rank_curve",
    "rows": [
        {"pair": pair, "r": r} | measured(asr=count, refusal=20 - count)
        for pair, found in (
            ("seed 0", {0: 19, 1: 8, 3: 0, None: 0}), ("seed 1", {0: 20, 3: 6, None: 1})
        )
        for r, count in found.items()
    ],
    "safety_rank": {"seed 0": 3, "seed 1": None},
}  # fmt: skip
JUDGES = {
    "figure": "judges",
    "n": 20,
    "shares": {"asr (rule)": share(4), "asr (keyword)": share(9), "refusal": share(10)},
}


# --- axes ---------------------------------------------------------------------------------------


def words(texts):
    return [text.get_text() for text in texts]


def dots_and_ends(ax, axis=1):
    """Return the shares drawn one by one and the ends of their intervals, each in order."""
    data = [line.get_data()[axis] for line in ax.get_lines() if line.get_marker() == "o"]
    bars = [path.vertices[:, axis] for c in ax.collections for path in c.get_paths()]
    return sorted(d[0] for d in data if len(d) == 1), sorted(map(tuple, bars))


def in_order(shares):
    """Return what `dots_and_ends` is to find of these shares."""
    return sorted(s["value"] for s in shares), sorted((s["low"], s["high"]) for s in shares)


def test_the_spectrum_is_every_matrix_over_its_noise_edge(subspace):
    data = spectrum_data(subspace)
    ax, _ = figures.figure_spectrum(data).axes
    lines = [line for line in ax.get_lines() if len(line.get_xdata()) > 2]
    assert len(lines) == len(subspace) == len(data["layers"])
    for line, name, layer in zip(lines, subspace, data["layers"], strict=True):
        S = np.linalg.svd(subspace[name].U * subspace[name].S @ subspace[name].Vh)[1]
        top = line.get_ydata()[:3] * layer["noise_edge"]
        np.testing.assert_allclose(top, S[:3], rtol=1e-4)
        assert list(line.get_xdata()[:3]) == [1, 2, 3]
    assert ax.get_xlabel() == "direction"
    assert "noise edge" in ax.get_ylabel()
    assert ax.get_yscale() == "log"
    assert sorted(words(ax.get_legend().get_texts())) == sorted([*ORDER, "embed_tokens", "lm_head"])


def test_the_energy_rises_to_all_of_it_and_the_median_is_drawn(subspace):
    _, ax = figures.figure_spectrum(spectrum_data(subspace)).axes
    curves = {line.get_label(): line.get_ydata() for line in ax.get_lines()}
    expected = np.median([subspace.energy(k) for k in (1, 2, 3, 6)], axis=1)
    np.testing.assert_allclose(curves["median"][[0, 1, 2, 5]], expected, rtol=1e-4)
    assert curves["median"][-1] == pytest.approx(1.0, abs=1e-4)
    assert (np.diff(curves["median"]) >= 0).all()
    assert f"k = 6: {expected[3]:.0%}" in words(ax.texts)
    assert ax.get_xlabel() == "directions kept, k"
    assert ax.get_ylim() == (0, 1)


def heat_maps(figure):
    """Return the grids, columns and rows of an energy map."""
    return [
        (
            np.ma.filled(ax.images[0].get_array(), np.nan),
            words(ax.get_xticklabels()),
            words(ax.get_yticklabels()),
        )
        for ax in figure.axes
        if ax.images and ax.get_label() != "<colorbar>"
    ]


def test_the_energy_map_has_layers_down_and_kinds_of_matrix_across(subspace):
    (grid, columns, rows), (outside, _, names) = heat_maps(
        figures.figure_energy_map(energy_map_data(subspace, k=3))
    )
    energy = dict(zip(subspace, subspace.energy(3), strict=True))
    assert columns == list(ORDER)
    assert rows == ["0", "1"]
    assert grid[1, 3] == pytest.approx(energy["model.layers.1.self_attn.o_proj.weight"], rel=1e-5)
    assert sorted(names) == ["embed_tokens", "lm_head"]
    head = outside[names.index("lm_head"), 0]
    assert head == pytest.approx(energy["lm_head.weight"], rel=1e-5)


@pytest.mark.parametrize(
    ("names", "columns", "outside"),
    [
        (
            "h.{}.attn.c_attn h.{}.attn.c_proj h.{}.mlp.c_proj wte",
            "c_attn attn.c_proj mlp.c_proj",
            "wte",
        ),
        ("gpt_neox.layers.{}.attention.query_key_value embed_out", "query_key_value", "embed_out"),
        ("layers.{}.mlp.0.up_proj layers.{}.mlp.1.up_proj", "mlp.0.up_proj mlp.1.up_proj", ""),
        ("lm_head model.embed_tokens", "", "lm_head embed_tokens"),
    ],
    ids=["gpt2", "neox", "experts without outside", "outside only"],
)
def test_the_energy_map_holds_every_matrix_of_other_architectures(names, columns, outside):
    full = [n.format(d) + ".weight" for n in names.split() for d in (0, 1)]
    energy = {name: (i + 1) / 20 for i, name in enumerate(dict.fromkeys(full))}
    maps = heat_maps(figures.figure_energy_map({"figure": "energy_map", "k": 6, "energy": energy}))
    values = np.concatenate([grid.ravel() for grid, _, _ in maps])
    np.testing.assert_allclose(sorted(values), sorted(energy.values()))  # each once, and no NaN
    if columns:
        assert maps[0][1] == columns.split()
    if outside:
        assert maps[-1][2] == outside.split()


def test_a_layer_that_lacks_a_matrix_has_a_blank_there():
    energy = {"layers.0.a.weight": 0.5, "layers.0.b.weight": 0.25, "layers.1.a.weight": 1.0}
    figure = figures.figure_energy_map({"figure": "energy_map", "k": 6, "energy": energy})
    ((grid, _, _),) = heat_maps(figure)
    assert np.isnan(grid[1, 1])
    assert sorted(words(figure.axes[0].texts)) == ["100", "25", "50"]


def test_the_defences_show_every_share_with_its_interval():
    figure = figures.figure_defences(DEFENCES)
    assert [ax.get_title() for ax in figure.axes] == list(defence_plots.MEASURES.values())
    for ax, measure in zip(figure.axes, defence_plots.MEASURES, strict=True):
        shares = [row["measures"][measure] for row in DEFENCES["rows"]]
        assert dots_and_ends(ax) == in_order(shares)
        assert words(ax.get_xticklabels()) == ["aligned", "LoX"]
    assert words(figure.legends[0].get_texts()) == ["before the attack", "after"]


def test_the_defences_leave_out_the_task_of_an_attack_that_has_none():
    rows = copy.deepcopy(DEFENCES["rows"])
    del rows[-1]["measures"]["task"]
    figure = figures.figure_defences({"figure": "defences", "rows": rows})
    assert [ax.get_title() for ax in figure.axes] == list(defence_plots.MEASURES.values())[:-1]


def test_the_alpha_curve_shows_three_shares_against_alpha():
    (ax,) = figures.figure_alpha(ALPHA).axes
    lines = {c.get_label(): c.lines[0].get_xydata().tolist() for c in ax.containers}
    assert list(lines) == ["ASR", "refusal", "helpfulness"]
    assert lines["ASR"] == [[0.0, 0.5], [0.5, 0.4], [1.0, 0.25]]
    assert ax.get_xlabel() == "alpha, at k = 6"


@pytest.mark.parametrize("helped", [True, False], ids=["help", "measured before help was"])
def test_the_rank_curve_shows_every_rank_and_the_aligned_model_with_intervals(helped):
    ranks = RANKS
    if helped:
        rows = [r | {"measures": r["measures"] | {"helpfulness": share(17)}} for r in ranks["rows"]]
        ranks = ranks | {"rows": rows}
    panels = dict(list(rank_plots.MEASURES.items())[: 2 + helped])
    figure = figures.figure_rank_curve(ranks)
    assert [ax.get_title() for ax in figure.axes] == list(panels.values())
    for ax, measure in zip(figure.axes, panels, strict=True):
        shares = [row["measures"][measure] for row in ranks["rows"]]
        assert dots_and_ends(ax) == in_order(shares)
        assert words(ax.get_xticklabels()) == ["0", "1", "3", "aligned"]
        curves = [line for line in ax.get_lines() if len(line.get_xdata()) > 2]
        assert [round(x) for x in curves[0].get_xdata()] == [0, 1, 2]
        assert list(curves[0].get_ydata()) == [s["value"] for s in shares[:3]]
    labels = words(figure.legends[0].get_texts())
    assert labels == ["seed 0: safety rank 3", "seed 1: safety rank above 3"]


def test_the_judges_stand_side_by_side_with_their_intervals():
    (ax,) = figures.figure_judges(JUDGES).axes
    assert words(ax.get_yticklabels()) == ["ASR (rule)", "ASR (keyword)", "refusal"]
    assert dots_and_ends(ax, axis=0) == in_order(JUDGES["shares"].values())
    assert ax.get_xlabel() == "share of the same 20 answers"


def test_the_interval_reaches_from_each_rate_as_far_as_wilson_says():
    data = figures.interval_data([10, 400])
    (ax,) = figures.figure_interval(data).axes
    above, below = ax.get_lines()[:2]
    low, high = Share(3, 10).interval
    assert (above.get_ydata()[3], below.get_ydata()[3]) == pytest.approx((high - 0.3, low - 0.3))
    assert [len(band["value"]) for band in data["bands"]] == [11, 101]
    assert words(ax.get_legend().get_texts()) == ["n = 10", "n = 400"]


def test_figures_do_not_pile_up_in_pyplot():
    plt.close("all")
    figures.figure_defences(DEFENCES)
    figures.figure_alpha(ALPHA)
    assert plt.get_fignums() == []


# --- attacks ------------------------------------------------------------------------------------


def table_marks(ax):
    """Return what marks of seeds stand for: seed, colour, inside, share."""
    return [
        (line.get_marker(), line.get_color(), line.get_markerfacecolor(), line.get_xdata()[0])
        for line in ax.lines
        if line.get_marker() in "os" and len(line.get_xdata())
    ]


def test_the_table_has_a_panel_per_attack_and_one_more_for_its_persona():
    fig = figures.DRAW["attack_table"](ATTACK_TABLE)
    assert [ax.get_title() for ax in fig.axes] == ["mixed", "persona", "persona, asked under it"]
    colour = attack_plots.TABLE_COLOURS["asr"]
    for ax, counts in zip(fig.axes, ([3, 4, 7, 8], [3, 4, 7, 8], [11, 11, 12, 12]), strict=True):
        found = [(mark, share) for mark, of, _, share in table_marks(ax) if of == colour]
        assert [mark for mark, _ in found] == ["o", "s", "o", "s"]  # seeds are told apart
        assert sorted(share for _, share in found) == pytest.approx([n / 20 for n in counts])
        assert words(ax.texts) == ["not run", "not run"]  # each was run in one way
    assert {inside for _, _, inside, _ in table_marks(fig.axes[1])} == {"white"}  # LoRA is hollow
    assert "white" not in {inside for _, _, inside, _ in table_marks(fig.axes[0])}


def test_the_way_along_an_attack_has_a_line_per_model_and_rate_in_every_panel():
    fig = figures.DRAW["epochs"](EPOCHS)
    assert [ax.get_title() for ax in fig.axes] == [
        "attack success rate", "help with allowed", "attack task solved"
    ]  # fmt: skip
    for i, ax in enumerate(fig.axes):
        assert len(ax.lines) == 4
        for line in ax.lines:
            assert line.get_ydata() == pytest.approx([i / 20, (5 + i) / 20, (10 + i) / 20])
    labels = words(fig.legends[0].get_texts())
    assert labels[1::2] == ["sandbox/aligned, learning rate 0.0004", "LoX, learning rate 0.0004"]


def test_lines_of_several_seeds_are_one_with_the_least_and_the_most_as_its_band():
    lines = [
        {"model": "LoX", "learning_rate": 1e-4, "seed": seed}
        | {"points": [{"step": s} | measured(s + 4 * seed, asr=0) for s in steps]}
        for seed, steps in ((0, (0, 5)), (1, (0, 5, 10)))
    ]
    (ax,) = figures.figure_epochs({"figure": "epochs", "attack": "a", "lines": lines}).axes
    (line,) = ax.lines
    assert line.get_xydata().tolist() == [[0, 0.1], [5, 0.35]]  # where both were measured
    (band,) = ax.collections
    ends = band.get_paths()[0].vertices[:, 1]
    assert (ends.min(), ends.max()) == pytest.approx((0, 0.45))


def test_two_models_that_end_in_lox_are_two_lines():
    pair = [line | {"model": f"{name} + LoX"} for line in EPOCHS["lines"][:1] for name in "ab"]
    fig = figures.figure_epochs(EPOCHS | {"lines": pair})
    assert [len(ax.lines) for ax in fig.axes] == [2, 2, 2]


def test_the_attack_lab_has_loss_and_shares_of_both_models_and_what_is_laid_over():
    fig = figures.DRAW["attack_lab"](ATTACK_LAB)
    loss, asr, helped = fig.axes
    assert [ax.get_title() for ax in fig.axes] == [
        "loss (nats per token)", "attack success rate", "help with allowed"
    ]  # fmt: skip
    curves = [line for line in loss.lines if len(line.get_xdata())]
    first, lox, over, cut, at = curves
    assert list(first.get_xdata()) == [1, 2, 3, 4]
    assert list(first.get_ydata()) == ATTACK_LAB["runs"][0]["arms"]["aligned"]["losses"]
    assert list(cut.get_ydata()) == [1.0]
    assert [line.get_linestyle() for line in (first, lox, over, cut)] == ["-", "-", ":", ":"]
    assert over.get_linewidth() < first.get_linewidth()
    assert list(at.get_xdata()) == [3, 3]
    values = [line.get_ydata()[0] * 20 for line in asr.lines[:4]]
    assert values == pytest.approx([15, 2, 9, 1])
    assert len(asr.collections) == len(helped.collections) == 2  # bands of the first run alone
    settings = "learning rate 0.0004 · 4 steps · full · seed 0"
    assert fig._suptitle.get_text() == f"mixed · {settings} · k = 6, α = 1"
    labels = ["aligned", "LoX", f"sums · {settings} · k = 3, α = 1"]
    assert words(fig.legends[0].get_texts()) == labels


# --- files --------------------------------------------------------------------------------------


def test_a_saved_figure_is_five_files_that_stay_the_same_bytes(tmp_path):
    files = figures.save_figure(ATTACK_LAB, "name", tmp_path / "new" / "figures")
    kinds = ["json", "csv", "pdf", "svg", "png"]
    assert [f.name for f in files] == [f"name.{kind}" for kind in kinds]
    first = [file.read_bytes() for file in files]
    data = json.loads(first[0])
    made = data.pop("made")
    assert data == ATTACK_LAB
    assert made["versions"]["lox_kit"] == lox_kit.__version__
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", made["date"])
    for page, begin in zip(first[2:], (b"%PDF", b"<?xml", b"\x89PNG"), strict=True):
        assert page.startswith(begin)
    for file in files[1:]:
        file.unlink()
    with plt.rc_context({"font.size": 20, "pdf.fonttype": 3}):  # the user's own look
        assert [file.read_bytes() for file in figures.redraw(files[0])] == first


def test_who_made_a_figure_changes_with_its_numbers_alone(tmp_path, monkeypatch):
    def made(data, command):
        monkeypatch.setattr("sys.argv", ["/usr/bin/lox", *command.split()])
        file = figures.save_figure(data, "a", tmp_path, kinds=())[0]
        return json.loads(file.read_text())["made"]["command"]

    assert made(ALPHA, "demo --seeds 0,1") == "lox demo --seeds 0,1"
    assert made(ALPHA, "other") == "lox demo --seeds 0,1"
    assert made(ALPHA | {"k": 7}, "other") == "lox other"


@pytest.mark.parametrize(
    ("data", "first", "rows"),
    [
        (DEFENCES, {"seed": 0, "arm": "aligned", "measure": "asr", "value": 0.2, "n": 20}, 32),
        (ALPHA, {"k": 6, "alpha": 0.0, "measure": "asr", "value": 0.5, "count": 10}, 9),
        (EPOCHS, {"learning_rate": 1e-4, "step": 0, "measure": "asr", "value": 0.0}, 36),
        (ATTACK_LAB, {"attack": "mixed", "arm": "aligned", "measure": "loss", "value": 1.0}, 33),
        (JUDGES, {"measure": "asr (rule)", "value": 0.2, "count": 4}, 3),
    ],
    ids=lambda given: given.get("figure") if isinstance(given, dict) else None,
)
def test_beside_a_figure_is_a_table_of_all_that_is_drawn(data, first, rows):
    frame = figures.frame(data)
    assert len(frame) == rows
    assert frame.iloc[0][list(first)].to_dict() == first


def test_singular_values_energies_and_cells_are_in_the_table_too(subspace):
    spectrum = figures.frame(spectrum_data(subspace))
    name = next(iter(subspace))
    drawn = spectrum[spectrum["name"] == name]["S"].to_numpy()
    np.testing.assert_allclose(drawn, subspace.spectrum(name), rtol=1e-5)
    energy = figures.frame(energy_map_data(subspace, k=3))["energy"].to_numpy()
    np.testing.assert_allclose(energy, subspace.energy(3), rtol=1e-5)


def test_an_unknown_figure_or_kind_of_file_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="figure='pie': use one of spectrum, energy_map"):
        figures.save_figure({"figure": "pie"}, "name", tmp_path / "figures")
    with pytest.raises(ValueError, match="figure=None"):
        figures.draw({}, tmp_path / "a.pdf")
    with pytest.raises(ValueError, match="'txt': figures are written as pdf, svg, png"):
        figures.draw(ALPHA, tmp_path / "a.txt")
    assert list(tmp_path.iterdir()) == []


def test_figures_are_larger_for_a_talk_and_files_are_for_a_paper_all_the_same(tmp_path):
    data = figures.interval_data([30])
    before = [f.read_bytes() for f in figures.save_figure(data, "a", tmp_path)]
    setting = widgets.Setting()
    try:
        setting.classroom = True
        assert figures.figure_interval(data).axes[0].xaxis.label.get_size() == 14
        assert [f.read_bytes() for f in figures.save_figure(data, "a", tmp_path)] == before
        setting.classroom = False
        assert figures.figure_interval(data).axes[0].xaxis.label.get_size() == 8
        with pytest.raises(OSError, match="'poster' is not a valid"):
            figures.use("poster")
    finally:
        figures.use("paper")
