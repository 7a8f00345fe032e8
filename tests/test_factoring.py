import json

import numpy as np
import pandas as pd
import pytest
import torch
from checkpoints import UP, factor, run_python, save_tensors, weights
from safetensors.torch import load_file, save_file

from lox_kit import SafetySubspace
from lox_kit.extrapolation import factoring


def assert_same(first, second):
    assert list(first) == list(second)
    for name in first:
        for part in ("U", "S", "Vh", "residual"):
            assert torch.equal(getattr(first[name], part), getattr(second[name], part))
        assert first[name].norm == pytest.approx(second[name].norm, rel=1e-7)
        assert first[name].method == second[name].method


@pytest.mark.parametrize("options", [{"rank": 4}, {"rank": "full"}], ids=str)
def test_the_streamed_file_holds_what_memory_holds(pair, tmp_path, options):
    in_memory = factor(pair, **options)
    streamed = factor(pair, tmp_path / "S.safetensors", **options)
    assert_same(in_memory, streamed)
    assert in_memory.info == streamed.info == SafetySubspace.load(tmp_path / "S.safetensors").info
    np.testing.assert_array_equal(in_memory.spectrum(UP), streamed.spectrum(UP))
    pd.testing.assert_frame_equal(in_memory.to_frame(), streamed.to_frame(), rtol=1e-7)


def test_patterns_choose_the_matrices_and_are_recorded(pair):
    found = factor(pair, rank=2, include="up_proj", exclude=r"layers\.0")
    assert list(found) == [UP]
    assert (found.info["include"], found.info["exclude"]) == ("up_proj", r"layers\.0")


def test_asking_again_returns_the_file_at_once_and_other_options_are_refused(
    pair, tmp_path, monkeypatch
):
    out = tmp_path / "S.safetensors"
    first = factor(pair, out, rank=4)
    monkeypatch.setattr(factoring, "top_factors", None)  # would fail if it were called
    assert_same(first, factor(pair, out, rank=4))
    with pytest.raises(FileExistsError, match="exists and is another subspace"):
        factor(pair, out, rank=5)
    assert list(tmp_path.iterdir()) == [out]


KILLED = """
import os, sys
from lox_kit import SafetySubspace
def die(what, done, total):
    if done == 5:
        os.kill(os.getpid(), 9)
SafetySubspace.from_pair(*sys.argv[1:], rank=4, on_stage=die)
"""


def test_a_killed_run_leaves_no_file_under_the_name_and_is_in_nobody_s_way(pair, tmp_path):
    out = tmp_path / "S.safetensors"
    assert run_python(KILLED, pair.base, pair.aligned, out).returncode == -9
    assert not out.exists()
    factor(pair, out, rank=4)
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("to_file", [False, True], ids=["memory", "file"])
def test_equal_values_in_other_files_are_no_pair(pair, tmp_path, to_file):
    tensors = weights(pair.aligned) | {"extra": torch.ones(1)}
    copy = save_tensors(tmp_path / "copy", tensors)
    out = tmp_path / "S.safetensors" if to_file else None
    with pytest.raises(ValueError, match="the delta is zero in every matrix"):
        SafetySubspace.from_pair(copy, pair.aligned, out)
    assert not list(tmp_path.glob("S.*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank=0: use a positive number, or 'full'"),
        ({"rank": "all"}, "rank='all'"),
    ],
)
def test_options_out_of_range_are_refused_before_anything_is_read(tmp_path, pair, options, message):
    with pytest.raises(ValueError, match=message):
        factor(pair, tmp_path / "S.safetensors", **options)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "no such file. `lox factor"),
        ("truncated", "not a whole safetensors file"),
        ("foreign", "not a file that `lox factor` makes"),
    ],
)
def test_what_is_no_subspace_file_is_refused(pair, tmp_path, kind, message):
    file = tmp_path / "S.safetensors"
    if kind == "truncated":
        factor(pair, file, rank=2)
        file.write_bytes(file.read_bytes()[:-9])
    elif kind == "foreign":
        save_file({"x": torch.ones(1)}, file)
    with pytest.raises((ValueError, OSError), match=message):
        SafetySubspace.load(file)


def test_the_file_is_plain_safetensors_that_says_where_it_comes_from(pair, tmp_path):
    factor(pair, tmp_path / "S.safetensors", rank=4)
    tensors = load_file(tmp_path / "S.safetensors")
    assert tensors[f"{UP}.U"].shape == (48, 4)
    assert {t.dtype for t in tensors.values()} == {torch.float32}
    info = SafetySubspace.load(tmp_path / "S.safetensors").info
    assert info["aligned"] == str(pair.aligned)
    assert json.loads(json.dumps(info)) == info


def test_two_matrices_at_a_time_give_the_factors_of_one_after_the_other(pair):
    before, made = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            made.append(factor(pair, rank=4))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for name in made[0]:
        torch.testing.assert_close(made[1][name].S, made[0][name].S)
