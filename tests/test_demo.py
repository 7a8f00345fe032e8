"""The whole story, as `lox demo` tells it."""

import json

import pytest
from speakers import watch
from transformers import LlamaForCausalLM

from lox_kit.attacks import run as attacks


@pytest.mark.slow
def test_the_demo_writes_figures_and_a_table_and_a_second_one_computes_nothing(
    lox, tmp_path, monkeypatch
):
    trained = watch(monkeypatch, attacks, "fine_tune")
    decoded = watch(monkeypatch, LlamaForCausalLM, "generate")
    call = ("--store", tmp_path / "store", "demo", "-o", "out", "--json")
    done = lox(*call)
    assert done.status == 0, done.err
    assert {row["seed"] for row in json.loads(done.out)} == {0}
    files = {f.name: f.read_bytes() for f in (tmp_path / "out").iterdir()}
    assert len(files) == 3 * 5 + 1
    prompts = len(decoded)
    assert len(trained) == 4
    assert lox(*call).out == done.out
    assert (len(trained), len(decoded)) == (4, prompts)
    assert {f.name: f.read_bytes() for f in (tmp_path / "out").iterdir()} == files
