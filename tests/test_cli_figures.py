"""`lox plot`: recorded figures at another width, in another style, or laid over each other."""

import json

import pytest
from test_figures import ALPHA, DEFENCES, JUDGES, RANKS

from lox_kit import figures

SOURCE = {"pair": "p", "judge": "rule", "k": 6, "alpha": 1.0, "attack": "arithmetic"}


@pytest.fixture
def recorded(tmp_path):
    """The files of two runs and of another figure, by name."""
    of = {"one": RANKS, "two": RANKS, "alpha": ALPHA}
    return {n: figures.save_figure(data, n, tmp_path, kinds=())[0] for n, data in of.items()}


def test_a_figure_is_drawn_again_at_a_venue_s_width(lox, recorded, tmp_path):
    found = lox("plot", recorded["alpha"], "--width", "acl", "--kinds", "pdf", "-o", "acl")
    assert found.status == 0, found.err
    assert found.out.split() == ["acl/alpha.json", "acl/alpha.csv", "acl/alpha.pdf"]
    again = json.loads((tmp_path / "acl" / "alpha.json").read_text())
    kept = json.loads(recorded["alpha"].read_text())
    assert again == kept  # who made it, and when, as well


def test_a_figure_from_before_makers_were_recorded_gets_none_by_being_drawn_again(lox, tmp_path):
    (tmp_path / "old.json").write_text(json.dumps(ALPHA))
    assert lox("plot", "old.json", "--kinds", "svg", "-o", "new").status == 0
    assert "made" not in json.loads((tmp_path / "new" / "old.json").read_text())


def test_published_numbers_are_drawn_where_they_are_asked_for_alone(lox, recorded, tmp_path):
    assert lox("plot", recorded["one"], "--with-paper", "--kinds", "svg").status == 0
    assert json.loads(recorded["one"].read_text())["paper"] is True
    assert lox("plot", recorded["one"], "--kinds", "svg").status == 0
    assert json.loads(recorded["one"].read_text())["paper"] is False


def test_two_runs_are_laid_over_each_other_and_told_apart(lox, recorded, tmp_path):
    assert lox("plot", recorded["one"], recorded["two"], "--kinds", "svg").status == 0
    data = json.loads((tmp_path / "one+two.json").read_text())
    assert list(data["safety_rank"]) == [
        "seed 0, one", "seed 1, one", "seed 0, two", "seed 1, two"
    ]  # fmt: skip
    fig = figures.figure_rank_curve(data)
    assert len([line for line in fig.axes[0].get_lines() if len(line.get_xdata()) > 1]) == 5


def test_files_of_one_name_are_told_apart_by_their_folders(lox, recorded, tmp_path):
    for folder in ("a", "b"):
        figures.save_figure(RANKS, "rank", tmp_path / folder, kinds=())
    assert lox("plot", "a/rank.json", "b/rank.json", "--kinds", "svg", "-o", "out").status == 0
    assert (tmp_path / "out" / "a-rank+b-rank.svg").is_file()


def test_a_table_of_attacks_is_written_for_booktabs(lox, tmp_path):
    rows = [row | {"training": "full"} for row in DEFENCES["rows"]]
    keep = ("asr", "refusal", "helpfulness", "task")
    for row in rows:
        row["measures"] = {n: row["measures"][n] for n in keep}
    figures.save_figure({**DEFENCES, "rows": rows, "source": SOURCE}, "t", tmp_path, kinds=())
    assert lox("plot", "t.json", "--latex", "--kinds", "png").status == 0
    text = (tmp_path / "t.tex").read_text()
    assert r"\toprule" in text
    assert r"arithmetic & full & LoX & 0.2" in text
    assert r"95 \% Wilson" in text


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (["one", "alpha"], "one, alpha are figures of rank_curve, alpha: only several of one kind"),
        (["alpha", "--latex"], "--latex: takes the .json of one table"),
        (["alpha", "--with-paper"], "--with-paper: is for retained, r_bars, rank_curve"),
        (["alpha", "--kinds", "jpg"], "'jpg': figures are written as pdf, svg, png"),
        (["one", "one"], "-one: runs are told apart by file and folder"),
        (["alpha", "--width", "big"], "width='big': use inches, or one of neurips"),
        (["alpha", "--style", "poster"], "poster"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(lox, recorded, call, message):
    found = lox("plot", *(recorded.get(word, word) for word in call))
    assert found.status == 2
    assert message in found.err
    assert "Traceback" not in found.err


def test_figures_of_a_kind_that_cannot_be_joined_are_refused():
    with pytest.raises(
        ValueError, match="a, b are figures of judges: only several of one kind can"
    ):
        figures.overlay({"a": JUDGES, "b": JUDGES})


def test_the_steps_of_lox_are_drawn_and_an_unknown_figure_is_refused(lox, tmp_path):
    assert lox("figures", "--only", "1", "-o", "out").status == 0
    assert (tmp_path / "out" / "pipeline.pdf").is_file()
    found = lox("figures", "--only", "1,8")
    assert found.status == 2
    assert "figure '8': use some of 1, 2, 3" in found.err


@pytest.mark.slow
def test_figures_of_the_paper_are_made_and_a_second_call_only_draws(lox, tmp_path, monkeypatch):
    call = ["figures", "--only", "3,4,7,spectrum", "--seeds", 0, "--limit", 4, "-o", "out"]
    first = lox(*call)
    assert first.status == 0, first.err
    names = {"r_bars", "epochs", "rank_curve", "spectrum", "energy_map"}
    assert {f.stem for f in (tmp_path / "out").iterdir()} == names
    caption = (tmp_path / "out" / "epochs.md").read_text()
    assert "sandbox, seeds 0; 4 forbidden and 4 allowed requests each, template chat" in caption
    before = {f.name: f.read_bytes() for f in (tmp_path / "out").iterdir()}
    for module in ("overlaps.run_attack", "curves.fine_tune"):
        monkeypatch.setattr(f"lox_kit.studies.{module}", None)
    assert lox(*call).status == 0
    assert {f.name: f.read_bytes() for f in (tmp_path / "out").iterdir()} == before
