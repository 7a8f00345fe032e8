"""Files that lox_kit made, as anybody may have changed them: right, or one line."""

import json
import warnings

import pytest
import torch
from checkpoints import ROOT
from hostile import JSON, ODD, as_json, damaged, damaged_bytes, refused
from hypothesis import given, settings, event
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from lox_kit import SafetySubspace, Store
from lox_kit.extrapolation.lox import LowRank
from lox_kit.figures import DRAW
from lox_kit.figures.files import redraw
from lox_kit.landscape import Line, Plane, Landscape
from lox_kit.landscape.directions import Direction
from lox_kit.landscape.flat import Flat, Point
from lox_kit.measures import AsrResult, read_card
from lox_kit.attacks.run import load_run
from lox_kit.studies import AttackTable, choose
import re


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


def note(line, file):
    event(
        "right"
        if line is None
        else re.sub(r"[0-9']+|'.*?'", "_", line.replace(str(file), "F"))[:70]
    )


def read_all(file):
    with safe_open(file, "pt") as f:
        return {name: f.get_tensor(name) for name in f.offset_keys()}, f.metadata()


@pytest.fixture(scope="module")
def kept(folder):
    generator = torch.Generator().manual_seed(0)
    base = {f"l{i}.weight": torch.randn(4, 3, generator=generator) for i in range(2)}
    aligned = {n: W + torch.randn(4, 3, generator=generator) for n, W in base.items()}
    for name, tensors in (("base", base), ("aligned", aligned)):
        (folder / name).mkdir()
        save_file(tensors, folder / name / "model.safetensors")
    SafetySubspace.from_pair(folder / "base", folder / "aligned", folder / "S.safetensors", rank=2)
    return read_all(folder / "S.safetensors")


TENSORS = st.builds(
    lambda shape, dtype, fill: torch.full(shape, fill, dtype=torch.float64).to(dtype),
    st.lists(st.integers(0, 5), max_size=3).map(tuple),
    st.sampled_from([torch.float32, torch.float64, torch.int64, torch.bool, torch.bfloat16]),
    st.sampled_from([0.0, 1.0, -1.0, float("nan"), float("inf"), 1e30]),
)


@st.composite
def damaged_tensors(draw, tensors):
    tensors = {n: t.clone() for n, t in tensors.items()}
    for _ in range(draw(st.integers(0, 2))):
        name = draw(st.sampled_from(sorted(tensors)))
        how = draw(st.sampled_from(["gone", "other", "scaled", "cut", "one", "renamed"]))
        t = tensors[name]
        if how == "gone":
            del tensors[name]
        elif how == "other":
            tensors[name] = draw(TENSORS)
        elif how == "scaled":
            tensors[name] = t.float() * draw(
                st.sampled_from([-1.0, 0.0, 2.0, 1.02, float("nan"), 1e30])
            )
        elif how == "cut" and t.ndim:
            tensors[name] = t[: draw(st.integers(0, 2))].clone()
        elif how == "renamed":
            tensors[draw(st.text(max_size=8))] = tensors.pop(name)
        elif t.numel() and t.is_floating_point():
            t.view(-1)[draw(st.integers(0, t.numel() - 1))] = draw(
                st.sampled_from([0.0, -1.0, 7.0, float("nan"), float("inf")])
            )
        if not tensors:
            break
    return tensors


def write(file, tensors, about):
    tensors = {n: t.contiguous() for n, t in tensors.items()}
    try:
        save_file(tensors, file, metadata=about)
    except Exception:
        save_file({"a": torch.ones(1)}, file, metadata=about)


@settings(max_examples=2000, deadline=None)
@given(st.data())
def test_subspace(folder, kept, data):
    tensors, about = kept
    info = data.draw(damaged(json.loads(about["lox_kit"])) | st.just(json.loads(about["lox_kit"])))
    tensors = data.draw(damaged_tensors(tensors))
    file = folder / "D.safetensors"
    write(file, tensors, {"lox_kit": json.dumps(info)})

    def use():
        s = SafetySubspace.load(file)
        s.energy(k=1)
        for n in s:
            s[n].top(1)
        s.norms
        s.to_frame() if hasattr(s, "to_frame") else None

    note(refused(use, file), file)


def line_():
    parts = {"a": torch.ones(2, 3), "b": LowRank(torch.ones(4, 1), torch.ones(1, 2))}
    direction = Direction(parts, "key", "name")
    return Line((direction,), (2.0, 0.0, 1.0), "L2", ("x",), {"o": Point((0.0,), 0.0)}, "k", "o")


@settings(max_examples=2000, deadline=None)
@given(st.data())
def test_flat(folder, data):
    file = folder / "line.safetensors"
    line_().save(file)
    tensors, about = read_all(file)
    info = json.loads(about["lox_kit_flat"])
    info = data.draw(damaged(info) | st.just(info))
    write(file, data.draw(damaged_tensors(tensors)), {"lox_kit_flat": json.dumps(info)})

    def use():
        f = Flat.load(file)
        f.key
        f.coefficients((1.0,) * len(f.directions))

    note(refused(use, file), file)


FIGS = sorted((ROOT / "figures").glob("*.json"), key=lambda f: f.stat().st_size)


@pytest.mark.parametrize(
    "name",
    [
        "attack_table",
        "defences",
        "rank_curve",
        "spectrum",
        "energy_map",
        "landscape_map_arithmetic_0",
        "landscape_3d_arithmetic_0",
        "landscape_flatness_arithmetic_0",
    ],
)
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_figures(folder, name, data):
    file = folder / "figure.json"
    whole = json.loads((ROOT / "figures" / f"{name}.json").read_text())
    file.write_bytes(data.draw(damaged(whole, JSON).map(as_json)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        note(refused(lambda: redraw(file, kinds=["svg"]), file), file)


RESULT = {
    "prompts": [
        {"text": "a", "target": None, "label": "safe"},
        {"text": "b", "target": "x", "label": "unsafe"},
    ],
    "responses": ["yes", "no"],
    "verdicts": {
        "rule": [
            {
                "score": 1.0,
                "harmful": True,
                "reason": "r",
                "parsed": True,
                "judge": "rule",
                "version": "1",
                "refused": False,
            }
        ]
        * 2,
        "people": [
            {
                "score": 1.0,
                "harmful": True,
                "reason": "r",
                "parsed": True,
                "judge": "rule",
                "version": "1",
                "refused": False,
            }
        ]
        * 2,
    },
    "source": {
        "model": "m",
        "sandbox": True,
        "judges": {"rule": "1"},
        "refused": {"0": "why"},
        "labelled": {"model": ["m", "m"], "kind": ["", ""]},
    },
}


@settings(max_examples=2000, deadline=None)
@given(damaged(RESULT))
def test_result(folder, data):
    file = folder / "asr.json"
    file.write_bytes(as_json(data))

    def use():
        r = AsrResult.load(file)
        r.summary()
        r.to_frame()
        r.agreement

    note(refused(use, file), file)


@settings(max_examples=1000, deadline=None)
@given(damaged(RESULT))
def test_card(folder, data):
    file = folder / "card.json"
    file.write_bytes(as_json(data))
    from lox_kit.measures.card import card_groups

    note(refused(lambda: card_groups(read_card(file)), file), file)
