"""What CONTRIBUTING.md shows works, and is where it says."""

import re

import ipywidgets
import pytest
from checkpoints import ROOT

import lox_kit

TEXT = (ROOT / "CONTRIBUTING.md").read_text()


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What its examples define, each run after the one before it."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("contributing"))
        patch.setenv("LOX_KIT_STORE", "store")
        for code in re.findall(r"```python\n(.*?)```", TEXT, re.S):
            exec(compile(code, "CONTRIBUTING.md", "exec"), found)
    del lox_kit.attacks.ATTACKS["echo"], lox_kit.judges.JUDGES["length"]
    return found


def test_the_attack_trains(names):
    assert len(names["run"].losses) == 4


def test_the_metric_is_measured_at_every_cell(names):
    cells = names["found"].cells.values()
    assert len(cells) == 9
    assert all(0 < cell.low <= cell.value <= cell.high for cell in cells)


def test_the_panel_follows_its_slider_and_its_setting(names):
    panel = names["panel"]
    (slider,) = [w for w in panel.children if isinstance(w, ipywidgets.IntSlider)]
    slider.value = 3
    assert panel.state.code() == "subspace.energy(k=3).mean()"
    panel.close()


@pytest.mark.parametrize("path", re.findall(r"`([a-z_]+/[a-z_/]+\.py)`", TEXT))
def test_what_it_names_is_there(path):
    assert (ROOT / "lox_kit" / path).exists() or (ROOT / path).exists()
