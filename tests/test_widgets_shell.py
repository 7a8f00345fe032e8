"""What every panel has around it."""

import time

import ipywidgets
import pytest
from panel_parts import find

from lox_kit import figures, widgets
from lox_kit.measures import Questions
from lox_kit.widgets import shell


@pytest.fixture
def panel(subspace, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return widgets.spectrum(subspace)


def test_save_figure_writes_the_twin_with_its_data_and_says_where(panel, tmp_path):
    find(panel, "lox-save-figure").click()
    names = sorted(f.name for f in (tmp_path / "figures").iterdir())
    assert names == [f"explorer-all-k6.{kind}" for kind in ("csv", "json", "pdf", "png", "svg")]
    assert figures.holds(tmp_path / "figures/explorer-all-k6.json", panel.state.data)
    assert str(tmp_path / "figures" / "explorer-all-k6") in panel.message.value


def test_code_opens_follows_and_closes(panel):
    assert panel.code.layout.display == "none"
    find(panel, "lox-code").click()
    assert panel.code.layout.display != "none"
    assert "k=6," in panel.code.value
    panel.state.setting.k = 3
    assert "k=3," in panel.code.value
    find(panel, "lox-code").click()
    assert panel.code.layout.display == "none"


def test_k_and_class_use_are_the_same_in_all_panels_of_a_setting(subspace):
    setting = widgets.Setting(subspace)
    panels = [widgets.spectrum(subspace, setting=setting) for _ in range(2)]
    setting.classroom, setting.k = True, 9
    for panel in panels:
        title = find(panel, "lox-explorer").layout.annotations[0].text
        assert title == "energy of ΔW in the top 9"
        assert "lox-class" in panel._dom_classes
        assert panel.size == 18
    setting.classroom = False
    assert all("lox-class" not in p._dom_classes for p in panels)


def test_an_error_in_a_callback_is_shown_as_text_until_a_button_is_pressed(panel, caplog):
    def broken():
        raise ValueError("<b>no</b>")

    panel.guard(broken)()
    assert "role='alert'" in panel.message.value
    assert "ValueError: &lt;b&gt;no&lt;/b&gt;" in panel.message.value
    assert "in a panel" in caplog.text
    panel.guard(lambda: None)({"name": "width"})  # a figure that refits itself
    assert "role='alert'" in panel.message.value
    panel.guard(lambda: None)(ipywidgets.Button())
    assert panel.message.value == ""


def test_a_panel_draws_at_once_for_its_own_slider_and_later_for_anothers(subspace, monkeypatch):
    monkeypatch.setattr(shell, "REST", 0.2)
    panel, drawn = widgets.rank(subspace, questions=Questions(())), []
    panel.html("drawn", lambda: drawn.append(panel.state.setting.k) or "")
    panel._sliders["k"].value = 3
    assert drawn == [3]
    for k in (4, 5):
        panel.state.setting.k = k
    assert drawn == [3]
    deadline = time.monotonic() + 10
    while drawn == [3] and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    assert drawn == [3, 5]
    panel.close()


def test_a_figure_never_takes_the_place_of_one_of_other_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shell.free_name({"k": 6}, "map") == "map"
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "map.json").write_text('{"k": 6}')
    assert shell.free_name({"k": 6}, "map") == "map"  # the same again
    assert shell.free_name({"k": 7}, "map") == "map-2"
