"""Full disks, and folders that cannot be written: one line, nothing half, and the same call again.

`LOX_KIT_FAULTS=100 pytest tests/faults` tries a hundred sizes with every verb.
"""

import shutil
from functools import partial

import machines
import pytest
from verbs import DRAWING, chosen, left, rounds


@pytest.mark.parametrize(("verb", "i"), rounds("apply", "attack"))
def test_a_disk_with_a_quota_that_any_file_may_reach(verbs, tmp_path, verb, i):
    size = chosen(verb, "quota", i).randrange(verbs.largest(verb))
    done = verbs.run(tmp_path, verb, partial(machines.largest_file, size))
    assert done.status == 2, done
    verbs.assert_survived(verb, tmp_path, done)


@pytest.mark.skipif(not machines.can_mount(), reason="no mounts here; the quota stands for them")
@pytest.mark.parametrize(("verb", "i"), rounds("adapter", "extrapolate", "asr"))
def test_a_disk_that_is_full_anywhere_on_the_way(verbs, tmp_path, verb, i):
    size = chosen(verb, "full", i).randrange(8192, verbs.size(verb))
    folder, kept = tmp_path / "disk", tmp_path / "kept"
    folder.mkdir()
    done = verbs.run(folder, verb, partial(machines.small_disk, folder, size, kept))
    verbs.assert_survived(verb, kept, done)


FORBIDDEN = {"read-only": machines.read_only, "not allowed": machines.not_allowed}
if not machines.can_mount():
    del FORBIDDEN["read-only"]
ways = pytest.mark.parametrize("forbid", FORBIDDEN.values(), ids=FORBIDDEN)


@ways
@pytest.mark.parametrize(("verb", "i"), rounds("factor", most=1))
def test_an_output_in_a_folder_that_cannot_be_written(verbs, tmp_path, verb, i, forbid):
    (tmp_path / "here").mkdir()
    done = verbs.run(tmp_path, verb, partial(forbid, tmp_path / "here"))
    assert done.status == 2, done
    verbs.assert_survived(verb, tmp_path, done)


@ways
@pytest.mark.parametrize(("verb", "i"), rounds("asr", verbs=("asr", *DRAWING), most=1))
def test_a_store_that_cannot_be_written(verbs, tmp_path, verb, i, forbid):
    (tmp_path / "store").mkdir()
    done = verbs.run(tmp_path, verb, partial(forbid, tmp_path / "store"))
    assert done.status == 2, done
    assert f"{tmp_path}/store/lox.sqlite: the store cannot be opened" in done.said[-1]
    verbs.assert_survived(verb, tmp_path, done)


@ways
def test_a_store_that_cannot_be_written_is_read(verbs, tmp_path, forbid):
    shutil.copytree(verbs.undisturbed("asr") / "store", tmp_path / "store")
    done = verbs.run(tmp_path, "asr", partial(forbid, tmp_path / "store"))
    assert done.status == 0, done
    assert left(tmp_path) == verbs.whole("asr")


@ways
@pytest.mark.parametrize(("verb", "i"), rounds("factor", verbs=("factor", "asr"), most=1))
def test_a_cache_that_cannot_be_written_changes_no_result(verbs, tmp_path, verb, i, forbid):
    cache = tmp_path / "cache"
    cache.mkdir()
    done = verbs.run(tmp_path, verb, partial(forbid, cache), cache=cache)
    assert done.status == 0, done
    assert left(tmp_path) == verbs.whole(verb)
