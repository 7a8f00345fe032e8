"""Files that lox_kit made, as anybody may have changed them: right, or one line."""

import json
import math
import sqlite3
import warnings

import numpy as np
import pytest
import torch
from checkpoints import ROOT
from hostile import JSON, NO_JSON, as_json, damaged, refused, tries
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from test_damage import line, read_all
from test_sweep import made as swept

from lox_kit import SafetySubspace, Store
from lox_kit.attacks.run import load_run
from lox_kit.extrapolation.file import FIELDS
from lox_kit.figures import redraw
from lox_kit.landscape import Landscape
from lox_kit.landscape.flat import Flat
from lox_kit.measures import AsrResult, card_groups, read_card
from lox_kit.models.plan import machine_rates
from lox_kit.store import DamagedRecord, _fits
from lox_kit.studies import AttackTable, choose


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the files of a module are written, one over the other."""
    return tmp_path_factory.mktemp("results")


# --- tensors with a description -----------------------------------------------------------------

SHAPES = st.lists(st.integers(0, 5), max_size=3).map(tuple)
DTYPES = st.sampled_from([torch.float32, torch.float64, torch.int64, torch.bool, torch.bfloat16])
NUMBERS = st.sampled_from([0.0, 1.0, -1.0, 2.0, 1.02, 1e30, float("nan"), float("inf")])
OTHERS = st.builds(
    lambda shape, dtype, x: torch.full(shape, x, dtype=torch.float64).to(dtype),
    SHAPES,
    DTYPES,
    NUMBERS,
)


@st.composite
def changed(draw, tensors):
    """Draw tensors of which up to two are gone, renamed, or others."""
    tensors = {name: W.clone() for name, W in tensors.items()}
    for _ in range(draw(st.integers(0, 2))):
        name = draw(st.sampled_from(sorted(tensors)))
        W, how = tensors[name], draw(st.sampled_from(["gone", "named", "new", "scaled", "cut"]))
        if how == "gone" and len(tensors) > 1:
            del tensors[name]
        elif how == "named":
            tensors[draw(st.text("a./01", max_size=8))] = tensors.pop(name)
        elif how == "scaled":
            tensors[name] = W.float() * draw(NUMBERS)
        elif how == "cut" and W.ndim:
            tensors[name] = W[: draw(st.integers(0, 2))].contiguous()
        else:
            tensors[name] = draw(OTHERS)
    return tensors


@pytest.fixture(scope="module")
def factored(folder):
    """The subspace file of a pair of three matrices: its tensors and what it says of them."""
    generator = torch.Generator().manual_seed(0)
    for name in ("base", "aligned"):
        tensors = {f"l{i}.weight": torch.randn(4, 3, generator=generator) for i in range(3)}
        (folder / name).mkdir()
        save_file(tensors, folder / name / "model.safetensors")
    SafetySubspace.from_pair(folder / "base", folder / "aligned", folder / "S.safetensors", rank=2)
    tensors, about = read_all(folder / "S.safetensors")
    return tensors, json.loads(about["lox_kit"])


def factors_of(file) -> dict[str, torch.Tensor]:
    """Return the top two directions of every matrix of a subspace file, put together."""
    subspace = SafetySubspace.load(file)
    assert np.isfinite(subspace.energy(k=1)).all()
    return {n: (f.U * f.S) @ f.Vh for n, f in ((name, subspace[name]) for name in subspace)}


@tries(300)
@given(st.data())
def test_a_field_of_a_subspace_file_that_is_not_what_it_should_be_is_named(folder, factored, data):
    tensors, info = factored
    field = data.draw(st.sampled_from([*FIELDS]))
    value = data.draw(JSON | st.just(...))
    file = folder / "changed.safetensors"
    about = {n: v for n, v in (info | {field: value}).items() if v is not ...}
    save_file(tensors, file, metadata={"lox_kit": json.dumps(about)})
    found: dict[str, torch.Tensor] = {}
    said = refused(lambda: found.update(factors_of(file)), file)
    if said is None:
        assert value == [] or _fits(value, FIELDS[field])
        whole = factors_of(folder / "S.safetensors")
        assert found
        assert all(torch.equal(W, whole[name]) for name, W in found.items())
    else:
        assert f"'{field}'" in said or "should be torch." in said


@tries(200)
@given(st.data())
def test_a_subspace_file_of_any_tensors_is_read_or_refused(folder, factored, data):
    tensors, info = factored
    about = data.draw(damaged(info).map(as_json) | st.just(as_json(info)) | NO_JSON)
    file = folder / "changed.safetensors"
    text = about.decode(errors="replace")
    save_file(data.draw(changed(tensors)), file, metadata={"lox_kit": text})
    refused(lambda: factors_of(file), file)


@tries(300)
@given(st.data())
def test_a_plane_file_of_anything_is_read_or_refused(folder, data):
    tensors, about = read_all(line().save(folder / "line.safetensors"))
    info = json.loads(about["lox_kit_flat"])
    info = data.draw(damaged(info).map(as_json) | st.just(as_json(info)) | NO_JSON)
    held = data.draw(changed(tensors))
    file = folder / "changed.safetensors"
    save_file(held, file, metadata={"lox_kit_flat": info.decode(errors="replace")})

    def walk() -> None:
        flat = Flat.load(file)
        assert flat.key
        assert len(flat.coefficients((1.0,) * len(flat.axes))) == len(flat.axes) == len(flat.axes)
        for direction in flat.directions:
            for part in direction.parts.values():
                dense = part.left @ part.right if isinstance(part, tuple) else part
                assert dense.isfinite().all()

    refused(walk, file)


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64])
def test_factors_of_two_dtypes_are_refused(folder, dtype):
    tensors, about = read_all(line().save(folder / "line.safetensors"))
    name = next(n for n in tensors if "/right/" in n)
    file = folder / "changed.safetensors"
    held = tensors | {name: tensors[name].to(dtype)}
    save_file(held, file, metadata={"lox_kit_flat": about["lox_kit_flat"]})
    assert str(dtype) in refused(lambda: Flat.load(file), file)


# --- numbers ------------------------------------------------------------------------------------

VERDICT = {"score": 1.0, "harmful": True, "reason": "r", "parsed": True, "judge": "rule"}
VERDICT |= {"version": "1"}
PROMPTS = [("a", "safe"), ("b", "unsafe")]
RESULT = {
    "prompts": [{"text": t, "target": None, "label": label} for t, label in PROMPTS],
    "responses": ["yes", "no"],
    "verdicts": {"rule": [VERDICT] * 2, "people": [VERDICT] * 2},
    "source": {"model": "m", "sandbox": True, "judges": {"rule": "1"}, "refused": {"0": "why"}},
}
RESULT["source"]["labelled"] = {"model": ["m", "m"], "kind": ["", ""]}
CELL = {"value": 0.5, "low": 0.0, "high": 1.0, "per_prompt": [0.5], "answers": ["a"]}
LAND = {
    "grid": {"axes": [{"step": 1.0, "first": 0, "last": 1}]},
    "cells": [[[0], CELL], [[1], CELL]],
    "marks": {"m": {"at": [0.0], "distance": 0.0, "cell": CELL, "own": None}},
    **{"axes": ["x"], "prompts": ["p"], "complete": True, "source": {"metric": "m"}},
}
RUN = {"attack": "a", "losses": [0.5], "source": {"key": "k", "name": "n", "weights": []}}


def measured(file) -> None:
    """Use a result in every way that needs no model."""
    result = AsrResult.load(file)
    assert all(0 <= x.get("count", 0) <= x["n"] for x in result.summary().values())
    assert all(-1 <= x["value"] <= 1 for x in result.summary().values())
    assert len(result.to_frame()) == len(result.prompts)
    assert len(result.agreement) == math.comb(len(result.verdicts), 2)


def chosen(file) -> None:
    """Choose a setting, as `lox choose` does."""
    from lox_kit.folders import reading

    table = AttackTable.load(file)
    with reading(file, "no setting can be chosen"):
        choose(table, draws=9)


READERS = {
    "asr.json": (measured, RESULT),
    "card.json": (lambda file: card_groups(read_card(file)), RESULT),
    "sweep.json": (chosen, swept().to_dict()),
    "landscape.json": (lambda file: Landscape.load(file), LAND),
    "attack.json": (lambda file: load_run(file.parent), RUN),
}


@pytest.mark.parametrize("name", READERS)
def test_numbers_as_they_were_written_are_read(folder, name):
    read, whole = READERS[name]
    (folder / name).write_bytes(as_json(whole))
    assert refused(lambda: read(folder / name)) is None


def test_half_a_character_in_an_answer_is_refused(folder):
    file = folder / "asr.json"
    file.write_bytes(as_json(RESULT | {"responses": ["yes", "\ud800"]}))
    assert "surrogates" in refused(lambda: measured(file), file)


@pytest.mark.parametrize("name", READERS)
@tries(60)
@given(st.data())
def test_numbers_that_are_anything_are_read_or_refused(folder, name, data):
    read, whole = READERS[name]
    file = folder / name
    file.write_bytes(data.draw(damaged(whole).map(as_json) | NO_JSON))
    refused(lambda: read(file), file)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"float32": "x"}', b"null"])
def test_a_damaged_note_of_how_fast_the_machine_is_is_named(tmp_path, monkeypatch, damage):
    import platform

    monkeypatch.setenv("LOX_KIT_CACHE", str(tmp_path))
    file = tmp_path / f"rates-{platform.node()}-cpu.json"
    file.write_bytes(damage)
    machine_rates.cache_clear()
    assert "damaged; remove it" in refused(lambda: machine_rates("cpu"), file)
    machine_rates.cache_clear()


# --- figures ------------------------------------------------------------------------------------

FIGURES = {"rank_curve": 6, "energy_map": 8, "landscape_map_arithmetic_0": 8, "spectrum": 6}
FIGURES |= {"landscape_3d_arithmetic_0": 8, "landscape_flatness_arithmetic_0": 6, "defences": 4}


@pytest.mark.filterwarnings("ignore")  # of matplotlib, about letters that its type lacks
@pytest.mark.parametrize(("name", "few"), FIGURES.items(), ids=[*FIGURES])
def test_a_figure_s_data_that_are_anything_are_drawn_or_refused(folder, name, few):
    whole, file = json.loads((ROOT / "figures" / f"{name}.json").read_text()), folder / "f.json"

    @tries(few)
    @given(damaged(whole).map(as_json) | NO_JSON)
    def drawn_or_refused(text):
        file.write_bytes(text)
        refused(lambda: redraw(file, kinds=["svg"]), file)

    drawn_or_refused()


@pytest.mark.parametrize(("end", "number"), [("last", 10**9), ("first", -(10**12))])
def test_a_grid_of_other_cells_than_it_holds_is_refused(tmp_path, end, number):
    data = json.loads((ROOT / "figures" / "landscape_map_arithmetic_0.json").read_text())
    data["grid"][0][end] = number
    (tmp_path / "f.json").write_bytes(as_json(data))
    said = refused(lambda: redraw(tmp_path / "f.json", kinds=["svg"]), tmp_path)
    assert "it holds (21, 21) values, and its grid has (" in said


def test_a_figure_is_saved_over_a_file_that_is_none(tmp_path):
    whole = json.loads((ROOT / "figures" / "energy_map.json").read_text())
    for there in (b"[]", b"{", b"7", b"[" * 10**5):
        (tmp_path / "f.json").write_bytes(as_json(whole))
        (tmp_path / "g.json").write_bytes(there)
        redraw(tmp_path / "f.json", kinds=[])
        from lox_kit.figures import save_figure

        save_figure({k: v for k, v in whole.items() if k != "made"}, "g", tmp_path, kinds=[])
        assert json.loads((tmp_path / "g.json").read_text())["figure"] == "energy_map"


# --- the store ----------------------------------------------------------------------------------

RECORD, LIKE = {"text": "a", "n": 1}, {"text": str, "n": (int, float)}


@tries(150)
@given(damaged({"record": RECORD}).map(lambda d: as_json(d.get("record"))) | NO_JSON)
def test_a_record_that_is_anything_fits_or_is_left_out_and_named(folder, text):
    with Store(folder / "store") as store:
        store.put_many("answer", {"good": RECORD, "bad": RECORD})
        with sqlite3.connect(folder / "store" / "lox.sqlite") as db:
            made = "2025-06-18 12:00:00"  # as an older version, which had no checksums
            values = (text.decode(errors="replace"), made)
            db.execute("UPDATE records SET value=?, made=? WHERE key='bad'", values)
        db.close()
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            found = store.get_many("answer", ["good", "bad"], LIKE)
    assert found.pop("good") == RECORD
    assert [w.category for w in told] == ([] if found else [DamagedRecord])
    for record in found.values():
        assert record.keys() == RECORD.keys()
        assert isinstance(record["text"], str)
        assert type(record["n"]) in (int, float)
    assert found or "lox.sqlite: answer bad is damaged" in str(told[0].message)
