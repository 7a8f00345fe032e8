"""`lox landscape`: models of your own, and the sandbox's attacks with their caption."""

import dataclasses
import json

import pytest

from lox_kit import SafetySubspace, apply_lox
from lox_kit.landscape.grid import Axis
from lox_kit.landscape.landscape import Landscape
from lox_kit.studies import landscape as landscape_study


@pytest.fixture(scope="module")
def lox_folder(tmp_path_factory):
    """A LoX checkpoint of the sandbox."""
    subspace = SafetySubspace.from_pair("sandbox/base", "sandbox/aligned", rank=8)
    return apply_lox(subspace, "sandbox/aligned", tmp_path_factory.mktemp("lox") / "lox", 6, 1.0)


@pytest.mark.parametrize("metric", ["asr", "margin"])
def test_three_models_span_a_plane(lox, lox_folder, tmp_path, metric):
    models = ["sandbox/aligned", lox_folder, "sandbox/base"]
    options = ["--metric", metric, "--cells", 3, "--limit", 8]
    status, out, err = lox("landscape", *models, *options, "-o", "out")
    assert status == 0, err
    files = [line.split("/")[-1] for line in out.splitlines()]
    assert {"landscape_map.png", "landscape_3d.pdf", "landscape_cells.json"} <= set(files)
    found = Landscape.load(tmp_path / "out" / "landscape_cells.json")
    assert len(found.cells) == 9
    assert list(found.marks) == ["aligned", "LoX", "attacked"]
    for mark in found.marks.values():
        assert mark.cell.value == pytest.approx(mark.own.value, abs=1e-5)
    data = json.loads((tmp_path / "out" / "landscape_map.json").read_text())
    assert (data["figure"], data["n_prompts"]) == ("landscape_map", 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give ALIGNED LOX ATTACKED ATTACKED_LOX"),
        (["sandbox/aligned", "sandbox/base"], "give ALIGNED LOX ATTACKED ATTACKED_LOX"),
        (["--attacks", "mixed", "--metric", "margin"], "are for models of your own"),
        (["--attacks", "mixed", "--seeds", "one"], "'--seeds': 'one' is not a valid integer"),
        (["--attacks", "gsm8k"], "use its counterpart"),
        (["sandbox/aligned", "sandbox/aligned", "sandbox/base"], "has length 0"),
    ],
)
def test_what_makes_no_sense_is_one_line_and_status_2(lox, arguments, message):
    status, _, err = lox("landscape", *arguments)
    assert status == 2
    assert message in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_the_sandboxes_attacks_come_with_their_caption(lox, tmp_path, monkeypatch):
    far = landscape_study.WALKS["sandbox"]
    short = {kind: Axis(a.step * 5, a.first, a.last // 5) for kind, a in far.axes.items()}
    monkeypatch.setitem(landscape_study.WALKS, "sandbox", dataclasses.replace(far, axes=short))
    call = ["landscape", "--attacks", "forbidden", "--cells", 3, "--limit", 8, "-o", "out"]
    status, out, err = lox(*call)
    assert status == 0, err
    made = {line.split("/")[-1] for line in out.splitlines()}
    assert {f"landscape_{k}_forbidden_0.svg" for k in ("map", "3d", "flatness")} <= made
    caption = (tmp_path / "out" / "landscape.md").read_text()
    for part in ("off the plane", "VISAGE", "No flatter ground is shown", "LoX - aligned"):
        assert part in caption
    data = json.loads((tmp_path / "out" / "landscape_map_forbidden_0.json").read_text())
    assert len(data["trajectories"]) == 2
    for name in ("attacked", "attacked LoX"):
        row = next(x for x in caption.splitlines() if f"| {name} |" in x)
        mark = data["marks"][name]
        assert f"| {mark['distance']:.2f} | {mark['own'][0]:.2f} | {mark['cell'][0]:.2f} |" in row
    before = {f.name: f.read_bytes() for f in (tmp_path / "out").iterdir()}
    assert lox(*call)[0] == 0  # from the store
    assert {f.name: f.read_bytes() for f in (tmp_path / "out").iterdir()} == before
