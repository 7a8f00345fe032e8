"""Nothing that was measured changes unless somebody means it to: see benchmarks/golden.py."""

import platform
import subprocess
import sys

import pytest
from checkpoints import ROOT

SCRIPT = ROOT / "benchmarks" / "golden.py"
PARTS = [
    "edit spectrum figures",
    *(pytest.param(part, marks=pytest.mark.slow) for part in "panels attacks rank cliffs".split()),
]
COMPARE = """
import sys
sys.path.insert(0, sys.argv[1])
from golden import differences
old = {"count": 3, "values": [0.5, 200.0], "hash": "ab"}
def lines(**new): return list(differences(old, old | new, "part"))
assert lines(values=[0.50009, 200.019]) == []
assert lines(values=[0.5002, 200.0]) == ["part: values[0]: 0.5002, recorded 0.5"]
assert lines(values=[0.5]) and lines(values=[0.5, float("nan")]) and lines(values=[0.5, None])
assert lines(count=4) and lines(count=3.0) and lines(hash="ba") and lines(more=1)
"""


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="recorded with x86-64's instructions"
)
@pytest.mark.parametrize("parts", PARTS)
def test_what_was_recorded_is_measured_again(parts):
    done = subprocess.run([sys.executable, SCRIPT, *parts.split()], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_count_a_hash_or_a_float_that_is_another_would_be_seen():
    done = subprocess.run(
        [sys.executable, "-c", COMPARE, SCRIPT.parent], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
