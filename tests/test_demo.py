"""The whole story: a cut that changes nothing."""

import json
import subprocess
import sys

import pytest
from checkpoints import ROOT

from lox_kit import Store

COUNTED = """
import json, sys
from lox_kit.attacks import run as attacks
from lox_kit.cli import main as cli
from transformers import LlamaForCausalLM
counts = {"runs": 0, "prompts": 0}
train, decode = attacks.fine_tune, LlamaForCausalLM.generate
def counted_train(*a, **b):
    counts["runs"] += 1
    return train(*a, **b)
def counted_decode(module, input_ids, **b):
    counts["prompts"] += len(input_ids)
    return decode(module, input_ids, **b)
attacks.fine_tune, LlamaForCausalLM.generate = counted_train, counted_decode
try:
    cli.main()
finally:
    print(json.dumps(counts), file=sys.stderr)
"""


KILLED = """
import os
from lox_kit import Store
from lox_kit.cli import main as cli
put = Store.put
def put_and_die(store, kind, *rest):
    put(store, kind, *rest)
    if kind == "table" and store.count("table") == 3:
        os.kill(os.getpid(), 9)
Store.put = put_and_die
cli.main()
"""


def demo(script, store, out):
    """Run `lox demo` by a script; return its status, stdout and stderr."""
    command = (sys.executable, "-c", script, "--store", store, "demo", "-o", out, "--json")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_a_killed_demo_goes_on_where_it_was_and_ends_as_if_undisturbed(tmp_path):
    store = tmp_path / "store"
    assert demo(KILLED, store, tmp_path / "killed")[0] == -9
    assert not (tmp_path / "killed").exists()
    with Store(store) as opened:
        stored = opened.count("answer")
    assert stored > 0
    _, out, err = demo(COUNTED, store, tmp_path / "resumed")
    _, undisturbed, counts = demo(COUNTED, tmp_path / "other", tmp_path / "whole")
    assert json.loads(out) == json.loads(undisturbed)
    resumed, whole = (json.loads(text.splitlines()[-1]) for text in (err, counts))
    assert (resumed["runs"], whole["runs"]) == (3, 4)  # the aligned model was attacked before
    assert resumed["prompts"] == whole["prompts"] - stored
    files = {f.name: f.read_bytes() for f in (tmp_path / "whole").iterdir()}
    assert len(files) == 3 * 4 + 1
    assert {f.name: f.read_bytes() for f in (tmp_path / "resumed").iterdir()} == files
