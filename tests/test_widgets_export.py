"""Panels written as pages: what is recorded, and what is not in the file."""

import json
from itertools import product

import pytest
from pages import Page
from panel_parts import asking_little, copy_of, plane_to_base
from speakers import watch

from lox_kit import SafetySubspace, Store, load_model, widgets
from lox_kit.figures.plotly import alpha_spec, viewer_spec
from lox_kit.landscape import Asr, Grid
from lox_kit.measures import Questions
from lox_kit.models import Prompt, answers
from lox_kit.widgets.export import SIZE
from lox_kit.widgets.panels.dial import panel as dial_panel
from lox_kit.widgets.panels.dial import state as dial_state
from lox_kit.widgets.panels.landscape import panel as landscape_panel
from lox_kit.widgets.panels.landscape import state as landscape_state

FEW = 4
GRID = {"ks": (1, 6), "alphas": (0.0, 1.0, 2.0), "pages": 2}
HOSTILE = "</script><script>x=1</script><!-- <img src=x onerror=x()> ' \" \u2028 {{data}}"
REFUSAL = "sorry , i can not help with that ."
_short = asking_little(dial_state, landscape_state, FEW=FEW)


@pytest.fixture
def dial(factored, model, base):
    """The dial on few prompts."""
    panel = widgets.dial(factored, model, base=base)
    yield panel
    panel.close()


@pytest.fixture(scope="module")
def plane():
    return plane_to_base()


@pytest.fixture
def viewer(plane, aligned):
    """The landscape viewer on few cells."""
    panel = widgets.landscape(
        plane, copy_of(aligned), grid=Grid.spanning((-1, 1), (-1, 1), cells=3)
    )
    panel.state.finer = 0
    yield panel
    panel.close()


@pytest.fixture(scope="module")
def strangers(tiny_pair):
    """A subspace and the aligned model of a pair that is not the sandbox's, and its questions."""
    subspace = SafetySubspace.from_pair(*tiny_pair, rank=4)
    model = load_model(tiny_pair[1])
    stranger = type("Stranger", (type(model),), {"world": None, "is_sandbox": False})
    model.__class__ = stranger
    prompts = (Prompt("<b>how</b>"), Prompt("what goes into it"))
    asked = Questions(prompts, prompts[::-1], judge="keyword", max_new_tokens=3)
    return subspace, model, asked


# --- what is recorded ---------------------------------------------------------------------------


def test_a_page_has_the_dial_s_own_figure_and_table_at_every_setting(dial, tmp_path):
    page = Page(dial.export(tmp_path / "dial.html", **GRID))
    assert [axis["name"] for axis in page.data["axes"]] == ["prompts", "k", "alpha"]
    assert page.data["start"] == [0, 1, 1]
    state, chosen = dial.state, [page.values(name) for name in ("prompts", "k", "alpha")]
    assert chosen == [[0, 1], [1, 6], [0.0, 1.0, 2.0]]
    places = [
        state.at(state.dial_place._replace(k=k, alpha=alpha), number)
        for number, k, alpha in product(*chosen)
    ]
    assert len(page.data["views"]) == len(places)
    most = state.setting.most_alpha
    for i, data in enumerate(places):
        assert all(c["shares"] for c in data["table"]["columns"])
        assert not any(a["pending"] for row in data["table"]["rows"] for a in row["answers"])
        spec, (table,) = page.shown(i)
        assert spec == alpha_spec(data["curve"], data["alpha"], most=most, size=SIZE)
        about = dial_panel.measured_on(state.questions)
        assert table == dial_panel.table_html(data["table"], about, hidden=False)
    assert len({page.shown(i)[1][0] for i in range(12)}) > 6
    assert state.data == state.at(state.dial_place, 0)
    assert (state.dial.k, state.dial.alpha) == (6, 1.0)


def test_every_model_is_asked_every_prompt_once_and_a_second_page_asks_nothing(
    factored, model, base, tmp_path, monkeypatch
):
    asked = watch(monkeypatch, answers, "fitting_batches")
    measured = watch(monkeypatch, dial_state, "measure_shares")
    with Store(tmp_path) as store:
        for name in ("first", "second"):
            panel = widgets.dial(factored, model, base=base, store=store)
            panel.export(tmp_path / f"{name}.html", **GRID)
            panel.close()
    models = 6  # base, aligned, which is every k's alpha = 0, and two alphas of two ks
    assert len(measured) == 2 * (models)
    assert sum(len(todo) for (todo, *_), _ in asked) == (models) * 2 * FEW
    assert Page(tmp_path / "first.html").data == Page(tmp_path / "second.html").data


def test_an_answer_is_once_in_the_page_however_often_it_is_given(dial, tmp_path):
    page = Page(dial.export(tmp_path / "dial.html", **GRID))
    refusal = next(part for part in page.pool if str(part).endswith(f">{REFUSAL}"))
    assert page.text.count(f'>{REFUSAL}"') == 1
    uses = sum(page.pool.index(refusal) in cells for *_, cells in page.data["views"])
    assert uses > 6


def test_the_panel_s_own_setting_is_on_the_grid_and_others_are_refused_before_anything_is_asked(
    dial, tmp_path, monkeypatch
):
    dial.state.job.wait()
    asked = watch(monkeypatch, dial_state, "measure_shares")
    with pytest.raises(ValueError, match="k=999: use 0 to 64"):
        dial.export(tmp_path / "dial.html", ks=(1, 999))
    with pytest.raises(ValueError, match="alpha=-1: use 0 to 4"):
        dial.export(tmp_path / "dial.html", alphas=(-1, 1))
    assert asked == []
    dial.state.setting.k, dial.state.setting.alpha = 4, 0.75
    page = Page(dial.export(tmp_path / "dial.html", ks=(1,), alphas=(), pages=1))
    assert (page.values("k"), page.values("alpha")) == ([1, 4], [0.75])
    assert page.data["start"] == [0, 1, 0]


def test_a_page_has_every_cell_of_the_landscape_measured_first(viewer, tmp_path):
    told = []
    file = viewer.export(tmp_path / "landscape.html", on_stage=lambda *step: told.append(step))
    page, state = Page(file), viewer.state
    assert state.landscape.complete
    assert told[-1] == ("settings of the page", 9, 9)
    assert [page.values(name) for name in "ab"] == [[-1.0, 0.0, 1.0]] * 2
    assert page.data["start"] == [1, 1]
    for i, cell in enumerate(state.grid.indices):
        data = state.at(cell)
        spec, (here, cliffs) = page.shown(i)
        assert spec == json.loads(json.dumps(viewer_spec(data, SIZE)))
        assert here == landscape_panel.here_html(data, hidden=False)
        assert cliffs == landscape_panel.cliffs_html(data)
        assert f"of {FEW} prompts" in here
    assert page.data["facts"]["judge"] == "rule 1"


def test_a_cancelled_export_leaves_no_page_and_goes_on_where_it_was(dial, tmp_path, monkeypatch):
    file = tmp_path / "dial.html"

    def stop(what, done, total):
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dial.export(file, on_stage=stop, **GRID)
    assert dial.state.job.wait(60)
    assert dial.state.job.status == "cancelled"
    assert not file.exists()
    known = len(dial.state._shares)
    measured = watch(monkeypatch, dial_state, "measure_shares")
    dial.export(file, **GRID)
    assert len(measured) + known == 6


def test_other_work_in_the_panel_ends_an_export_with_an_error(dial, tmp_path):
    def choose(what, done, total):
        if done >= 2 and dial.state.setting.alpha == 1.0:
            dial.state.setting.alpha = 3.0

    with pytest.raises(RuntimeError, match="cancelled; what was measured is kept"):
        dial.export(tmp_path / "dial.html", on_stage=choose, **GRID)


# --- what is not in the file --------------------------------------------------------------------


def test_without_answers_verdicts_and_numbers_stay_and_no_answer_is_in_the_file(
    dial, viewer, tmp_path
):
    with_them = Page(dial.export(tmp_path / "with.html", **GRID))
    without = Page(dial.export(tmp_path / "without.html", answers=False, **GRID))
    said = {answer.strip() for answer in dial.state._answers.values()}
    assert len(said) > 3
    assert all(text in with_them.text for text in said)
    assert [text for text in said if text in without.text] == []
    assert "refused</span>" in without.shown(0)[1][0]
    on_map = Page(viewer.export(tmp_path / "map.html", answers=False))
    cells = {answer.strip() for cell in viewer.state._cells.values() for answer in cell.answers}
    assert len(cells) > 1
    assert not any(text in on_map.text for text in cells)


def test_what_other_models_say_stays_in_the_store_unless_it_is_asked_for(strangers, tmp_path):
    subspace, model, asked = strangers
    panel = widgets.dial(subspace, model, with_base=False, questions=asked)
    grid = {"ks": (1,), "alphas": (1,), "pages": 1}
    page = Page(panel.export(tmp_path / "kept.html", **grid))
    said = {answer.strip() for answer in panel.state._answers.values()} - {""}
    assert not any(f">{text}" in str(page.pool) for text in said)
    handed_on = Page(panel.export(tmp_path / "handed.html", answers=True, **grid))
    assert all(f">{text}" in str(handed_on.pool) for text in said)
    panel.close()


def test_texts_from_outside_end_no_element_of_the_page(plane, model, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "lox_kit.landscape.metrics.answer", lambda model, texts, *_, **__: [HOSTILE] * len(texts)
    )
    metric = Asr([Prompt(HOSTILE, target="take root")], "rule", max_new_tokens=4)
    grid = Grid.spanning((-1, 1), (-1, 1), cells=3)
    panel = widgets.landscape(plane, model, metric=metric, grid=grid)
    panel.state.finer = 0
    page = Page(panel.export(tmp_path / "landscape.html"))
    assert page.text.count("</script>") == 3
    assert "<img" not in page.text
    assert "\u2028" not in page.text
    assert "&lt;/script&gt;&lt;script&gt;" in page.shown(0)[1][0]
    panel.close()


def test_a_page_says_how_it_was_made_without_naming_the_home_folder(dial, tmp_path, monkeypatch):
    monkeypatch.setattr("pathlib.Path.home", lambda: tmp_path)
    monkeypatch.setattr(dial.state, "code", lambda: f"load_model('{tmp_path}/model')")
    data = Page(dial.export(tmp_path / "dial.html", **GRID)).data
    assert data["code"] == "load_model('~/model')"
    facts = data["facts"]
    assert facts["models"]["aligned"] == dial.state.keys["aligned"][:16]
    assert facts["subspace"] | {"rank": 0} == {
        "base": "sandbox/base", "aligned": "sandbox/aligned", "rank": 0, "seed": 0
    }  # fmt: skip
    asked = {"forbidden": FEW, "allowed": FEW, "judge": "rule 1"}
    assert asked.items() <= facts["questions"].items()
    assert {"lox_kit", "torch"} <= facts["versions"].keys()
    assert facts["date"]


def test_what_code_cannot_be_written_for_is_exported_all_the_same(dial, tmp_path, monkeypatch):
    def code():
        raise ValueError("this is a control")

    monkeypatch.setattr(dial.state, "code", code)
    assert Page(dial.export(tmp_path / "dial.html", **GRID)).data["code"] == "# this is a control"


def test_a_page_is_small_enough_to_be_sent(dial, viewer, tmp_path):
    for panel, grid, most in ((dial, GRID, 2.5e6), (viewer, {}, 4e6)):
        assert panel.export(tmp_path / "page.html", **grid).stat().st_size < most
