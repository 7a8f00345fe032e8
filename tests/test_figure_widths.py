"""Figures at the width of a venue: nothing is cut off, no type is smaller than 7 points."""

import json
import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from test_erosion import DATA as ERODED
from test_figures import ALPHA, ATTACK_LAB, ATTACK_TABLE, DEFENCES, EPOCHS, JUDGES, RANKS

from lox_kit import figures

MADE = {data["figure"]: data for data in (ALPHA, ATTACK_LAB, ATTACK_TABLE, DEFENCES, EPOCHS)}
MADE |= {data["figure"]: data for data in (JUDGES, RANKS, figures.interval_data())}
MADE |= {name: {"figure": name, **ERODED} for name in ("retained", "r_bars")}
MADE["pipeline"] = {"figure": "pipeline", "k": 6, "alpha": 1.25}
DRAWN = sorted((Path(__file__).parent.parent / "figures").rglob("*.json"))
DRAWN = [file for file in DRAWN if "figure" in json.loads(file.read_text())]


def smallest_type(pdf):
    """Return the size of the smallest type in a PDF that is not compressed, in points."""
    return min(float(size) for size in re.findall(rb"/F\d+ ([\d.]+) Tf", pdf))


def check(data, width, tmp_path):
    """Draw at a width: the page has it, all ink is on it, and the type can be read."""
    fig = figures.DRAW[data["figure"]](data, width=width)
    assert fig.get_figwidth() == width
    fig.draw_without_rendering()
    ink = fig.get_tightbbox()
    assert ink.x0 > -0.02
    assert ink.y0 > -0.02
    assert ink.x1 < width + 0.02
    assert ink.y1 < fig.get_figheight() + 0.02
    with plt.rc_context({"pdf.compression": 0}):
        *_, pdf = figures.save_figure(data, "a", tmp_path, width=width, kinds=["pdf"])
    page = pdf.read_bytes()
    assert smallest_type(page) >= 7
    assert b"/FontFile2" in page  # the fonts are embedded


@pytest.mark.parametrize("name", MADE)
def test_a_figure_fits_a_narrow_column(name, tmp_path):
    check(MADE[name], 3.25, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("width", [3.25, 5.5])
@pytest.mark.parametrize("file", DRAWN, ids=lambda file: file.stem)
def test_every_committed_figure_fits(file, width, tmp_path):
    check(json.loads(file.read_text()), width, tmp_path)


def test_a_venue_stands_for_its_width_and_a_style_of_your_own_wins(tmp_path):
    assert figures.figure_alpha(ALPHA, width="icml").get_figwidth() == figures.WIDTHS["icml"]
    own = tmp_path / "own.mplstyle"
    own.write_text("axes.labelsize: 11\nfont.family: serif\n")
    (ax,) = figures.figure_alpha(ALPHA, style=own).axes
    assert ax.xaxis.label.get_size() == 11
    assert ax.xaxis.label.get_family() == ["serif"]
    assert ax.get_xticklabels()[0].get_size() == 7  # what it does not say is the paper's


def test_for_a_talk_all_is_larger_in_the_same_shape():
    paper, talk = (figures.figure_alpha(ALPHA, style=style) for style in ("paper", "talk"))
    assert talk.get_size_inches() == pytest.approx(1.75 * paper.get_size_inches())
    sizes = [fig.axes[0].xaxis.label.get_size() for fig in (paper, talk)]
    assert sizes == [8, 14]


@pytest.mark.parametrize(
    ("width", "message"),
    [(2, "width=2: use 3 to 7.5 inches"), ("nature", "width='nature': use inches, or one of")],
)
def test_a_width_that_no_figure_is_made_for_is_refused(width, message):
    with pytest.raises(ValueError, match=message):
        figures.figure_alpha(ALPHA, width=width)


def test_a_figure_is_drawn_again_at_another_width_in_the_kinds_that_are_asked(tmp_path):
    first = {f.suffix: f.read_bytes() for f in figures.save_figure(ALPHA, "a", tmp_path)}
    *data, pdf = figures.redraw(tmp_path / "a.json", width=5.5, kinds=("pdf",))
    assert [f.suffix for f in (*data, pdf)] == [".json", ".csv", ".pdf"]
    assert pdf.read_bytes() != first[".pdf"]
    assert (tmp_path / "a.png").read_bytes() == first[".png"]  # as it was
