"""The verbs on a tiny pair, and what each leaves undisturbed; made once for all faults."""

import pytest
from verbs import Verbs


@pytest.fixture(scope="session")
def verbs(tiny_pair, tmp_path_factory):
    """Calls of the verbs that write."""
    return Verbs(tmp_path_factory.mktemp("verbs"), *tiny_pair)
