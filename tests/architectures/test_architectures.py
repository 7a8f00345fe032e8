"""No architecture gives a wrong result: each step is right, or refused in one line."""

import pytest
from examine import Examination
from zoo import QUICK, ZOO

OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in ZOO if name not in QUICK]


@pytest.mark.parametrize("name", [*QUICK, *OTHERS])
def test_an_architecture_is_edited_measured_and_trained_right_or_refused(tmp_path, name):
    done = Examination(ZOO[name], tmp_path).run()
    assert not [said for said in done.values() if said.startswith("refused") and "Error" in said]
