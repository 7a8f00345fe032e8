"""Figures: what is on the axes, and files that do not change by themselves."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pytest

from lox_kit import energy_map_data, explorer_data, figures, spectrum_data
from lox_kit.extrapolation import ORDER
from lox_kit.figures import defences as defence_plots
from lox_kit.figures import rank as rank_plots
from lox_kit.measures.intervals import Share, share_fields


def share(count):
    return share_fields(Share(count, 20))


@pytest.fixture(scope="module")
def defences():
    """Two arms over two seeds, made up."""
    rows = [
        {
            "seed": seed,
            "arm": arm,
            "moment": moment,
            "measures": {m: share(4 + 3 * i + seed) for i, m in enumerate(defence_plots.MEASURES)},
        }
        for seed in (0, 1)
        for arm in ("aligned", "LoX")
        for moment in ("before", "after")
    ]
    return {"figure": "defences", "rows": rows, "source": {}}


@pytest.fixture(scope="module")
def alpha():
    points = [
        {"alpha": a, "asr": share(10 - int(5 * a)), "refusal": share(10), "helpfulness": share(20)}
        for a in (0.0, 0.5, 1.0)
    ]
    return {"figure": "alpha", "k": 6, "points": points}


@pytest.fixture(scope="module")
def attack_table():
    """Two attacks of two arms over two seeds, one of them under its persona as well, made up."""
    rows = []
    for attack, training in ((None, "full"), ("mixed", "full"), ("persona", "LoRA")):
        for i, arm in enumerate(("aligned", "LoX")):
            for seed in (0, 1):
                measures = {"asr": share(3 + 4 * i + seed), "helpfulness": share(18 + i)}
                if attack == "persona":
                    measures["persona_asr"] = share(11 + i)
                row = {"attack": attack, "training": training, "arm": arm, "seed": seed}
                rows.append(row | {"measures": measures})
    return {"figure": "attack_table", "rows": rows, "source": {}}


@pytest.fixture(scope="module")
def epochs():
    measures = ("asr", "helpfulness", "task")
    lines = [
        {
            "model": model,
            "learning_rate": rate,
            "points": [
                {"step": s, "measures": {m: share(s + i) for i, m in enumerate(measures)}}
                for s in (0, 5, 10)
            ],
        }
        for model in ("sandbox/aligned", "sandbox/aligned + LoX")
        for rate in (1e-4, 4e-4)
    ]
    return {"figure": "epochs", "attack": "mixed", "lines": lines}


@pytest.fixture(scope="module")
def attack_lab():
    """Two runs, made up; of the second one LoX was cancelled at its first step."""
    said = {"training": "full", "learning_rate": 4e-4, "steps": 4, "seed": 0, "alpha": 1.0}

    def way(steps, count):
        measured = {"asr": share(count), "helpfulness": share(20)}
        points = [{"step": s, "measures": measured} for s in (0, 2, 4) if s <= steps]
        return {"losses": [1.0 / (s + 1) for s in range(steps)], "points": points}

    first = {"attack": "mixed", "k": 6, **said, "arms": {"aligned": way(4, 15), "LoX": way(4, 2)}}
    over = {"attack": "sums", "k": 3, **said, "arms": {"aligned": way(4, 9), "LoX": way(1, 1)}}
    return {"figure": "attack_lab", "at": 3, "runs": [first, over]}


@pytest.fixture(scope="module")
def ranks():
    """Two pairs, made up; the second was measured at fewer ranks."""
    counts = {"seed 0": {0: 19, 1: 8, 3: 0, None: 0}, "seed 1": {0: 20, 3: 6, None: 1}}
    rows = [
        {"pair": pair, "r": r, "measures": {"asr": share(c), "refusal": share(20 - c)}}
        for pair, found in counts.items()
        for r, c in found.items()
    ]
    found = {"seed 0": 3, "seed 1": None}
    return {"figure": "rank_curve", "rows": rows, "safety_rank": found, "source": {}}


@pytest.fixture(scope="module")
def judges():
    """Two judges of twenty answers, made up."""
    shares = {"asr (rule)": share(4), "asr (keyword)": share(9), "refusal": share(10)}
    return {"figure": "judges", "n": 20, "shares": shares, "source": {}}


ELSEWHERE = {"landscape_map", "landscape_3d", "flatness"}  # in test_landscape_figures
ELSEWHERE |= {"rank_and_r"}  # in test_rank_figures


@pytest.fixture(params=[name for name in figures.DRAW if name not in ELSEWHERE])
def data(request, subspace, defences, alpha, attack_table, attack_lab, epochs, ranks, judges):
    """The data of every figure."""
    return {
        "spectrum": spectrum_data(subspace),
        "energy_map": energy_map_data(subspace, k=3),
        "explorer": explorer_data(subspace, k=3),
        "defences": defences,
        "alpha": alpha,
        "attack_table": attack_table,
        "attack_lab": attack_lab,
        "epochs": epochs,
        "rank_curve": ranks,
        "judges": judges,
        "interval": figures.interval_data([10]),
    }[request.param]


# --- axes ---------------------------------------------------------------------------------------


def test_the_spectrum_is_every_matrix_over_its_noise_edge(subspace):
    data = spectrum_data(subspace)
    _, ax = plt.subplots()
    assert figures.plot_spectrum(data, ax=ax) is ax
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
    labels = [t.get_text() for t in ax.get_legend().get_texts()]
    assert sorted(labels) == sorted([*ORDER, "embed_tokens", "lm_head"])
    plt.close("all")


def test_the_energy_rises_to_all_of_it_and_the_median_is_drawn(subspace):
    ax = figures.plot_energy(spectrum_data(subspace))
    curves = {line.get_label(): line.get_ydata() for line in ax.get_lines()}
    expected = np.median([subspace.energy(k) for k in (1, 2, 3, 6)], axis=1)
    np.testing.assert_allclose(curves["median"][[0, 1, 2, 5]], expected, rtol=1e-4)
    assert curves["median"][-1] == pytest.approx(1.0, abs=1e-4)
    assert (np.diff(curves["median"]) >= 0).all()
    assert f"k = 6: {expected[3]:.0%}" in {t.get_text() for t in ax.texts}
    assert ax.get_xlabel() == "directions kept, k"
    assert ax.get_ylim() == (0, 1)
    plt.close("all")


def heat_maps(figure):
    """Return the grids, columns and rows of an energy map."""
    return [
        (
            np.ma.filled(ax.images[0].get_array(), np.nan),
            [t.get_text() for t in ax.get_xticklabels()],
            [t.get_text() for t in ax.get_yticklabels()],
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
            [
                "transformer.h.{}.attn.c_attn",
                "transformer.h.{}.attn.c_proj",
                "transformer.h.{}.mlp.c_proj",
                "transformer.wte",
                "transformer.wpe",
            ],
            ["c_attn", "attn.c_proj", "mlp.c_proj"],
            ["wte", "wpe"],
        ),
        (
            ["gpt_neox.layers.{}.attention.query_key_value", "embed_out"],
            ["query_key_value"],
            ["embed_out"],
        ),
        (
            ["model.layers.{}.mlp.experts.0.up_proj", "model.layers.{}.mlp.experts.1.up_proj"],
            ["mlp.experts.0.up_proj", "mlp.experts.1.up_proj"],
            None,
        ),
        (["lm_head", "model.embed_tokens"], None, ["lm_head", "embed_tokens"]),
    ],
    ids=["gpt2", "neox", "experts without outside", "outside only"],
)
def test_the_energy_map_holds_every_matrix_of_other_architectures(names, columns, outside):
    full = [n.format(d) + ".weight" for n in names for d in (0, 1)]
    energy = {name: (i + 1) / 20 for i, name in enumerate(dict.fromkeys(full))}
    maps = heat_maps(figures.figure_energy_map({"figure": "energy_map", "k": 6, "energy": energy}))
    values = np.concatenate([grid.ravel() for grid, _, _ in maps])
    np.testing.assert_allclose(sorted(values), sorted(energy.values()))  # each once, and no NaN
    if columns:
        assert maps[0][1] == columns
    if outside:
        assert maps[-1][2] == outside


def test_a_layer_that_lacks_a_matrix_has_a_blank_there():
    energy = {"layers.0.a.weight": 0.5, "layers.0.b.weight": 0.25, "layers.1.a.weight": 1.0}
    figure = figures.figure_energy_map({"figure": "energy_map", "k": 6, "energy": energy})
    ((grid, _, _),) = heat_maps(figure)
    assert np.isnan(grid[1, 1])
    assert sorted(t.get_text() for t in figure.axes[0].texts) == ["100%", "25%", "50%"]


def test_the_defences_show_every_share_with_its_interval(defences):
    figure = figures.figure_defences(defences)
    assert [ax.get_title() for ax in figure.axes] == list(defence_plots.MEASURES.values())
    for ax, measure in zip(figure.axes, defence_plots.MEASURES, strict=True):
        drawn = sorted(line.get_ydata()[0] for line in ax.get_lines() if len(line.get_ydata()))
        shares = [row["measures"][measure] for row in defences["rows"]]
        assert drawn == sorted(s["value"] for s in shares)
        ends = sorted(tuple(path.vertices[:, 1]) for c in ax.collections for path in c.get_paths())
        assert ends == sorted((s["low"], s["high"]) for s in shares)
        assert [t.get_text() for t in ax.get_xticklabels()] == ["aligned", "LoX"]
    labels = {t.get_text() for t in figure.legends[0].get_texts()}
    assert labels == {"before the attack", "after"}


def test_the_alpha_curve_shows_three_shares_against_alpha(alpha):
    (ax,) = figures.figure_alpha(alpha).axes
    lines = {c.get_label(): c.lines[0] for c in ax.containers}
    assert len(lines) == 3
    asr = next(
        line for label, line in lines.items() if "refusal" not in label and "help" not in label
    )
    assert list(asr.get_xdata()) == [0.0, 0.5, 1.0]
    assert list(asr.get_ydata()) == [0.5, 0.4, 0.25]
    assert ax.get_xlabel() == "alpha, at k = 6"


@pytest.mark.parametrize("helped", [True, False], ids=["help", "measured before help was"])
def test_the_rank_curve_shows_every_rank_and_the_aligned_model_with_intervals(ranks, helped):
    if helped:
        rows = [r | {"measures": r["measures"] | {"helpfulness": share(17)}} for r in ranks["rows"]]
        ranks = ranks | {"rows": rows}
    panels = dict(list(rank_plots.MEASURES.items())[: 2 + helped])
    figure = figures.figure_rank_curve(ranks)
    assert [ax.get_title() for ax in figure.axes] == list(panels.values())
    for ax, measure in zip(figure.axes, panels, strict=True):
        shares = [row["measures"][measure] for row in ranks["rows"]]
        bars = [c for c in ax.collections if len(c.get_paths())]
        ends = sorted(tuple(path.vertices[:, 1]) for c in bars for path in c.get_paths())
        assert ends == sorted((s["low"], s["high"]) for s in shares)
        assert [t.get_text() for t in ax.get_xticklabels()] == ["0", "1", "3", "aligned"]
        curves = [line for line in ax.get_lines() if len(line.get_xdata()) > 2]
        assert [round(x) for x in curves[0].get_xdata()] == [0, 1, 2]
        assert list(curves[0].get_ydata()) == [s["value"] for s in shares[:3]]
    labels = [t.get_text() for t in figure.legends[0].get_texts()]
    assert labels == ["seed 0: safety rank 3", "seed 1: safety rank above 3"]


def test_the_judges_stand_side_by_side_with_their_intervals(judges):
    (ax,) = figures.figure_judges(judges).axes
    assert [t.get_text() for t in ax.get_yticklabels()] == [
        "ASR (rule)",
        "ASR (keyword)",
        "refusal",
    ]
    assert [line.get_xdata()[0] for line in ax.get_lines()] == [0.2, 0.45, 0.5]
    ends = [tuple(path.vertices[:, 0]) for c in ax.collections for path in c.get_paths()]
    assert ends == [(s["low"], s["high"]) for s in judges["shares"].values()]
    assert ax.get_xlabel() == "share of the same 20 answers"


def test_the_interval_reaches_from_each_rate_as_far_as_wilson_says():
    data = figures.interval_data([10, 400])
    (ax,) = figures.figure_interval(data).axes
    above, below = ax.get_lines()[:2]
    low, high = Share(3, 10).interval
    assert (above.get_ydata()[3], below.get_ydata()[3]) == pytest.approx((high - 0.3, low - 0.3))
    assert [len(band["value"]) for band in data["bands"]] == [11, 101]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["n = 10", "n = 400"]


def test_figures_do_not_pile_up_in_pyplot(defences, alpha):
    plt.close("all")
    figures.figure_defences(defences)
    figures.figure_alpha(alpha)
    assert plt.get_fignums() == []


# --- attacks ------------------------------------------------------------------------------------


def test_the_table_has_a_column_per_attack_and_one_more_for_its_persona(attack_table):
    fig = figures.DRAW["attack_table"](attack_table)
    axes = np.array(fig.axes).reshape(2, 3)
    titles = [ax.get_title() for ax in axes[0]]
    assert titles == ["mixed", "persona", "persona,\nasked under it"]
    for ax, counts in zip(axes[0], ([3, 4, 7, 8], [3, 4, 7, 8], [11, 11, 12, 12]), strict=True):
        dots = [line for line in ax.lines if line.get_marker() == "o" and len(line.get_xdata())]
        assert sorted(line.get_ydata()[0] * 20 for line in dots) == pytest.approx(counts)
    drawn = [line for line in axes[0, 1].lines if len(line.get_xdata())]
    assert {line.get_markerfacecolor() for line in drawn if line.get_marker() == "o"} == {"white"}


def test_the_way_along_an_attack_has_a_line_per_model_and_rate_in_every_panel(epochs):
    fig = figures.DRAW["epochs"](epochs)
    assert [ax.get_title() for ax in fig.axes] == [
        "attack success rate", "help with allowed", "attack task solved"
    ]  # fmt: skip
    for i, ax in enumerate(fig.axes):
        assert len(ax.lines) == 4
        for line in ax.lines:
            assert line.get_ydata() == pytest.approx([i / 20, (5 + i) / 20, (10 + i) / 20])
    labels = [t.get_text() for t in fig.legends[0].get_texts()]
    assert labels[1::2] == ["sandbox/aligned, learning rate 0.0004", "LoX, learning rate 0.0004"]


def test_the_attack_lab_has_loss_and_shares_of_both_models_and_what_is_laid_over(attack_lab):
    fig = figures.DRAW["attack_lab"](attack_lab)
    loss, asr, helped = fig.axes
    assert [ax.get_title() for ax in fig.axes] == [
        "loss (nats per token)", "attack success rate", "help with allowed"
    ]  # fmt: skip
    curves = [line for line in loss.lines if len(line.get_xdata())]
    first, lox, over, cut, at = curves
    assert list(first.get_xdata()) == [1, 2, 3, 4]
    assert list(first.get_ydata()) == attack_lab["runs"][0]["arms"]["aligned"]["losses"]
    assert list(cut.get_ydata()) == [1.0]
    assert [line.get_linestyle() for line in (first, lox, over, cut)] == ["-", "-", ":", ":"]
    assert over.get_linewidth() < first.get_linewidth()
    assert list(at.get_xdata()) == [3, 3]
    values = [line.get_ydata()[0] * 20 for line in asr.lines[:4]]
    assert values == pytest.approx([15, 2, 9, 1])
    assert len(asr.collections) == len(helped.collections) == 2  # bands of the first run alone
    words = "learning rate 0.0004 · 4 steps · full · seed 0"
    assert fig._suptitle.get_text() == f"mixed · {words} · k = 6, α = 1"
    labels = [t.get_text() for t in fig.legends[0].get_texts()]
    assert labels == ["aligned", "LoX", f"sums · {words} · k = 3, α = 1"]


# --- files --------------------------------------------------------------------------------------


def content(files):
    return {file.name: file.read_bytes() for file in files}


def test_a_saved_figure_is_four_files_that_stay_the_same_bytes(data, tmp_path):
    files = figures.save_figure(data, "name", tmp_path / "new" / "figures")
    assert [f.name for f in files] == ["name.json", "name.pdf", "name.svg", "name.png"]
    first = content(files)
    assert json.loads(first["name.json"]) == data
    assert first["name.pdf"].startswith(b"%PDF")
    assert b"<svg" in first["name.svg"]
    assert first["name.png"].startswith(b"\x89PNG")
    with plt.rc_context({"font.size": 20, "pdf.fonttype": 3}):  # the user's own look
        assert content(figures.save_figure(data, "name", tmp_path / "again")) == first
    for file in files[1:]:
        file.unlink()
    assert content(figures.redraw(files[0])) == first


def test_an_unknown_figure_or_kind_of_file_is_refused_before_anything_is_written(alpha, tmp_path):
    with pytest.raises(ValueError, match="figure='pie': use one of spectrum, energy_map"):
        figures.save_figure({"figure": "pie"}, "name", tmp_path / "figures")
    with pytest.raises(ValueError, match="figure=None"):
        figures.draw({}, tmp_path / "a.pdf")
    with pytest.raises(ValueError, match=r"a.txt: figures are written as pdf, svg, png"):
        figures.draw(alpha, tmp_path / "a.pdf", tmp_path / "a.txt")
    assert list(tmp_path.iterdir()) == []
