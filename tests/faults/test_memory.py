"""Too little memory at any moment: one line, nothing half, and the same call again.

A library in C may end the process by a signal instead; then there is no line, and nothing half.
"""

from functools import partial

import machines
import pytest
from verbs import DRAWING, chosen, rounds

MOST = {"factor": 8, "apply": 8, "adapter": 16, "extrapolate": 12, "attack": 200, "asr": 40}
MOST |= dict.fromkeys(DRAWING, 300)  # MB, more than which is always enough


@pytest.mark.parametrize(("verb", "i"), rounds("apply", "asr"))
def test_memory_that_ends_anywhere_on_the_way(verbs, tmp_path, verb, i):
    size = chosen(verb, "memory", i).randrange(MOST[verb] * 1_000_000) if i else 0
    done = verbs.run(tmp_path, verb, partial(machines.more_memory, size))
    assert i or done.status != 0  # nothing is done without any
    verbs.assert_survived(verb, tmp_path, done)
