"""The figure of rank and R: its data, the paper's version of it and the one on screen."""

import json

import numpy as np
import plotly.graph_objects as go
import pytest
from checkpoints import save_tensors, weights

from lox_kit import SafetySubspace, figures
from lox_kit.figures.plotly import rank_spec
from lox_kit.figures.rank_data import ALL, kinds_shown, place, rank_and_r_data, ticks_shown
from lox_kit.measures.intervals import Share, share_fields
from lox_kit.studies.results import RankCurve

# places of traces: two curves between bands and levels, the ring, and the median R_align
VALUES, SAFE, ALIGN = (2, 3), 6, 8
UP = [f"model.layers.{i}.mlp.up_proj.weight" for i in range(2)]


def curve(helped=True, **counts):
    """Return a made-up curve of counts out of 20: r1=3 is an ASR of 3/20 at r = 1."""
    rows = []
    for name, count in counts.items():
        measures = {"asr": share_fields(Share(count, 20))}
        if helped:
            measures["helpfulness"] = share_fields(Share(19, 20))
        rows.append({"pair": "p", "r": None if name == "aligned" else int(name[1:])})
        rows[-1]["measures"] = measures
    return RankCurve(tuple(rows), {})


@pytest.fixture(scope="module")
def r_ft(pair, subspace, tmp_path_factory):
    """R_ft at every k of two made-up attacks: one that moves little, one that moves much."""
    rng, found = np.random.default_rng(0), {}
    for name, size in (("weak", 1e-3), ("$strong$ <b>", 1e-1)):
        moved = {
            n: W + size * W.new_tensor(rng.standard_normal(W.shape)) if W.ndim == 2 else W
            for n, W in weights(pair.aligned).items()
        }
        folder = save_tensors(tmp_path_factory.mktemp("attack") / "ft", moved, {})
        found[name] = subspace.r_ft_curve(pair.base, folder, 32)
    return found


@pytest.fixture(scope="module")
def whole(r_ft):
    return curve(aligned=0, r0=20, r1=5, r3=0, r8=0), r_ft


def draw(subspace, whole, **chosen):
    return rank_and_r_data(subspace, *whole, **{"k": 3, **chosen})


# --- the data -----------------------------------------------------------------------------------


def test_the_data_hold_r_of_every_matrix_and_the_ratio_of_every_attack(subspace, whole):
    data = draw(subspace, whole)
    names = list(subspace)
    assert sorted(x["name"] for x in data["layers"]) == sorted(names)
    r_align = subspace.r_align(3)
    for layer in data["layers"]:
        i = names.index(layer["name"])
        assert layer["r_align"] == pytest.approx(r_align[i], rel=1e-5)
        for attack, values in whole[1].items():
            assert layer["r_ft"][attack] == pytest.approx(values[i, 3], rel=1e-5)
    ratios = whole[1]["weak"][:, 3] / r_align
    found = data["ratios"]["weak"]
    quartiles = np.percentile(ratios, [25, 50, 75])
    assert [found[n] for n in ("low", "median", "high")] == pytest.approx(quartiles, rel=1e-4)
    assert found["least"] == [names[ratios.argmin()], pytest.approx(ratios.min(), rel=1e-4)]
    assert found["n"] == len(names)
    assert data["ratios"]["$strong$ <b>"]["median"] < found["median"]
    assert data["safety_rank"] == 3
    assert list(data["ticks"])[:2] == ["0", "1"]
    assert sorted(data["ticks"])[2:] == ["embed_tokens", "lm_head"]
    assert json.loads(json.dumps(data)) == data


def test_a_kind_is_shown_alone_and_its_ratio_is_its_own(subspace, whole):
    data = draw(subspace, whole, kind="up_proj")
    assert [x["name"] for x in data["layers"]] == UP
    assert data["ratios"]["weak"]["n"] == 2
    assert kinds_shown(subspace)[:2] == [ALL, "q_proj"]
    with pytest.raises(ValueError, match="kind='up': use one of all, q_proj"):
        draw(subspace, whole, kind="up")


def test_k_of_none_leaves_no_ratio_and_one_that_was_not_measured_is_refused(subspace, whole):
    assert draw(subspace, whole, k=0)["ratios"] == {"weak": None, "$strong$ <b>": None}
    with pytest.raises(ValueError, match="k=33: the R_ft of weak go to k=32"):
        draw(subspace, whole, k=33)


def test_a_curve_of_two_pairs_is_refused(subspace):
    rows = curve(aligned=0, r0=1).rows
    both = RankCurve((*rows, *({**row, "pair": "q"} for row in rows)), {})
    with pytest.raises(ValueError, match=r"the curve is of 2 pairs \(p, q\)"):
        rank_and_r_data(subspace, both, {}, k=3)


def test_the_safety_rank_is_known_once_the_aligned_model_is(subspace):
    for found, expected in (
        (None, None),
        (curve(r0=20, r1=0), None),
        (curve(aligned=1, r0=20), None),
        (curve(aligned=1, r0=20, r2=1), 2),
    ):
        assert rank_and_r_data(subspace, found, {}, k=3)["safety_rank"] == expected


def test_what_is_outside_the_layers_stands_after_them_and_is_not_joined(subspace, whole):
    data = draw(subspace, whole)
    line = data["lines"][1]
    outside = [data["ticks"][name] for name in ("embed_tokens", "lm_head")]
    assert sorted(outside) == [3, 5]
    assert [value is None for value in line["median"]] == [False, False, True, False, True, False]
    first = [x["r_ft"]["weak"] for x in data["layers"] if x["place"] == 0]
    assert sorted(v[0] for v in line["kinds"].values() if v[0] is not None) == sorted(first)
    assert line["median"][0] == pytest.approx(np.median(first), rel=1e-5)


def test_about_a_dozen_of_many_layers_have_their_number():
    ticks = ticks_shown({"ticks": {str(i): i for i in range(32)} | {"embed_tokens": 37}})
    assert list(ticks.items())[:3] == [(37, "embed"), (0, "0"), (3, "3")]
    assert len(ticks) == 12


# --- drawn --------------------------------------------------------------------------------------


def test_screen_and_paper_show_the_same_points(subspace, whole):
    data = draw(subspace, whole)
    traces = go.Figure(rank_spec(data)).data
    figure = figures.figure_rank_and_r(data)
    axes = {ax.get_xlabel(): ax for ax in figure.axes}
    left = axes["directions of ΔW added to the base, r"]
    lines = {line.get_label(): line for line in left.get_lines()}
    for at, label in zip(VALUES, ("ASR", "help with allowed"), strict=True):
        assert traces[at].name == label
        np.testing.assert_allclose(traces[at].x, [place(r) for r in (0, 1, 3, 8)])
        np.testing.assert_array_equal(traces[at].y, lines[label].get_ydata())
        np.testing.assert_array_equal(traces[at].x, lines[label].get_xdata())
    assert list(traces[VALUES[0]].y) == [1.0, 0.25, 0.0, 0.0]
    assert traces[VALUES[0]].customdata[1].startswith("25% [11%, 47%], 5 of 20")
    bold = {line.get_label(): line for line in axes["layer"].get_lines()}
    screen = np.array(traces[ALIGN].y, dtype=float)
    np.testing.assert_array_equal(screen, bold["R of the alignment"].get_ydata())
    assert len(traces) == ALIGN + 1 + 2 * 2
    assert traces[SAFE].x == (place(3),)


def test_ranks_that_are_to_come_have_their_place_on_the_axis(subspace, r_ft):
    some = rank_and_r_data(subspace, curve(aligned=0, r0=20), r_ft, k=3)
    axis = rank_spec(some, ranks=(0, 1, 2, 32), most=32)["layout"]["xaxis"]
    assert axis["ticktext"] == ["0", "1", "2", "32"]
    later = rank_and_r_data(subspace, curve(aligned=0, r0=20, r1=3, r2=1, r32=0), r_ft, k=3)
    assert rank_spec(later, ranks=(0, 1, 2, 32), most=32)["layout"]["xaxis"] == axis


def test_a_curve_from_before_help_was_measured_and_none_at_all_are_drawn(subspace, r_ft):
    for found in (curve(helped=False, aligned=0, r0=20, r2=0), None):
        data = rank_and_r_data(subspace, found, r_ft, k=3)
        assert list(rank_spec(data)["data"][VALUES[1]]["x"]) == []
        figures.figure_rank_and_r(data)
    words = [a["text"] for a in rank_spec(data)["layout"]["annotations"]]
    assert "not measured yet" in words
    assert len(figures.figure_rank_and_r(rank_and_r_data(subspace, None, {}, k=0)).axes) == 2


def test_names_are_shown_as_they_are(subspace, whole):
    data = draw(subspace, whole)
    text = json.dumps(rank_spec(data))
    assert "$strong$ &lt;b&gt;" in text
    assert "<b>" not in text
    ratio = figures.figure_rank_and_r(data).axes[-1]
    assert [t.get_text() for t in ratio.get_yticklabels()] == ["weak", "\\$strong\\$ <b>"]


def test_matrices_without_layers_are_all_outside(tmp_path):
    rng = np.random.default_rng(1)
    import torch

    made = [{"a.weight": torch.tensor(rng.standard_normal((6, 4)))} for _ in range(2)]
    base, aligned = (save_tensors(tmp_path / n, W) for n, W in zip("xy", made, strict=True))
    subspace = SafetySubspace.from_pair(base, aligned)
    data = rank_and_r_data(subspace, None, {}, k=2)
    assert list(data["ticks"]) == ["a"]
    rank_spec(data)
    figures.figure_rank_and_r(data)
