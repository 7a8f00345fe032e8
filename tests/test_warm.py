"""`lox warm`: a class's store is filled once, and then nobody trains the same attack again."""

import dataclasses
import importlib

import nbformat
import pytest
from checkpoints import ROOT
from click.testing import CliRunner

import lox_kit.attacks.run
from lox_kit import Store, load_model, run_attack
from lox_kit.attacks import find_attack
from lox_kit.cli.main import lox

CELLS = """
from lox_kit import Store, load_model, run_attack
from lox_kit.attacks import find_attack
attack = find_attack("arithmetic", max_steps=2)
run = run_attack(load_model("sandbox/aligned"), attack, store=Store(), keep_every=2)
"""


@pytest.fixture
def warmed(tmp_path, monkeypatch):
    """A class's store, filled by a notebook, under its name."""
    file = tmp_path / "lesson.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELLS)]), file)
    monkeypatch.setenv("LOX_KIT_CLASS", str(tmp_path / "class"))  # as on a teacher's machine
    found = CliRunner().invoke(lox, ["warm", str(file), "-o", str(tmp_path / "class")])
    assert found.exit_code == 0, found.output
    assert f"export LOX_KIT_CLASS={tmp_path / 'class'}" in found.output
    return tmp_path / "class"


def test_what_a_notebook_trained_is_read_and_what_it_did_not_is_made_in_ones_own(
    warmed, tmp_path, monkeypatch
):
    model, attack = load_model("sandbox/aligned"), find_attack("arithmetic", max_steps=2)
    with Store(tmp_path / "own") as store:
        with monkeypatch.context() as patch:
            patch.delattr(lox_kit.attacks.run, "train_copy")  # nothing can be trained
            run = run_attack(model, attack, store=store, keep_every=2)
        assert run.folder.is_relative_to(warmed / "runs")
        assert run.load().name == "sandbox/aligned after arithmetic"
        more = run_attack(model, attack, store=store, keep_every=1)  # checkpoints it lacks
        settings = dataclasses.replace(attack.settings, seed=1)
        other = run_attack(model, dataclasses.replace(attack, settings=settings), store=store)
    for made in (more, other):
        assert made.folder.is_relative_to(tmp_path / "own")
    assert more.losses == run.losses


def test_a_cell_that_fails_is_named_in_one_line(tmp_path):
    file = tmp_path / "broken.ipynb"
    cell = nbformat.v4.new_code_cell("raise RuntimeError('no such potion')")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), file)
    found = CliRunner().invoke(lox, ["warm", str(file), "-o", str(tmp_path / "class")])
    assert found.exit_code == 1
    assert str(found.exception) == f"{file}: RuntimeError: no such potion"


def test_by_default_it_runs_what_students_get_and_no_solutions(tmp_path, monkeypatch):
    ran = []
    warm = importlib.import_module("lox_kit.cli.lab")
    monkeypatch.setattr(warm, "_run", lambda file, store: ran.append(file))
    assert CliRunner().invoke(lox, ["warm", "-o", str(tmp_path / "class")]).exit_code == 0
    given = sorted([*ROOT.glob("notebooks/0*.ipynb"), *ROOT.glob("notebooks/course/*.ipynb")])
    assert sorted(ran) == given
