"""A kernel in which panels are opened and closed for long does not grow.

A minute of it, or as many seconds as `LOX_KIT_SECONDS` says.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

SECONDS = os.environ.get("LOX_KIT_SECONDS", "60")
WARM_UP = 2  # rounds, or a tenth of them


@pytest.mark.slow
def test_panels_that_were_closed_leave_memory_as_it_was():
    script = Path(__file__).with_name("hour_of_panels.py")
    done = subprocess.run([sys.executable, script, SECONDS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rounds = [json.loads(line) for line in done.stdout.splitlines()]
    warm = rounds[max(WARM_UP, len(rounds) // 10) :]
    third = len(warm) // 3
    assert third, "too few rounds"
    for what, most in (("memory", 1.05), ("objects", 1.01)):
        first, last = (median(r[what] for r in part) for part in (warm[:third], warm[-third:]))
        assert last < most * first, rounds
    assert {r["widgets"] for r in warm} == {rounds[0]["widgets"]}, rounds
