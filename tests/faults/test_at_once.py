"""Two processes at once, into one output and one store: one whole result, and no harm."""

import re
import time

import pytest
from verbs import DRAWING, chosen, left, rounds

LONG = dict.fromkeys(DRAWING, 2.0) | {"attack": 0.8}  # seconds within which the second begins
REFUSED = r"another lox is writing this: pid \d+, since | exists[;,:] |exists. "


@pytest.mark.parametrize(("verb", "i"), rounds("factor", "attack"))
def test_the_same_call_twice_at_once(verbs, tmp_path, verb, i):
    verbs.whole(verb)
    first = verbs.start(tmp_path, verb)
    time.sleep(chosen(verb, "twice", i).random() * LONG.get(verb, 0.2) if i else 0)
    done = [process.wait() for process in (first, verbs.start(tmp_path, verb))]
    assert 0 in [status for status, _ in done], done
    for status, said in done:
        assert status == 0 or (status == 2 and re.search(REFUSED, said[-1])), done
    assert left(tmp_path) == verbs.whole(verb)
