"""The verbs on a tiny pair, and what each leaves undisturbed; made once for all faults."""

import sys

import pytest

if sys.platform == "linux":
    from verbs import Verbs
else:  # which has other limits, mounts and capabilities
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def verbs(tiny_pair, tmp_path_factory):
    """Calls of the verbs that write."""
    return Verbs(tmp_path_factory.mktemp("verbs"), *tiny_pair)
