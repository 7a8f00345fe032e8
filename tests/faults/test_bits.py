"""A flipped bit, in every kind of file: one line that names the file, or the same numbers.

And files of other versions: older ones are read, newer ones are refused and left as they are.
"""

import json
import random
import shutil
import sqlite3
import warnings

import pytest
from safetensors import safe_open
from test_damage import line
from verbs import ROUNDS

from lox_kit import Checkpoint, SafetySubspace, Store, apply_lox, load_model, save_adapter
from lox_kit.attacks import find_attack, run_attack
from lox_kit.landscape.flat import Flat
from lox_kit.store import DamagedRecord
from lox_kit.weights.sums import DIGITS, SUMS, raw

FLIPS = 25 * ROUNDS  # of every kind of file and part of it
PARTS = ("U", "S", "Vh", "residual")


def read_subspace(file):
    subspace = SafetySubspace.load(file)
    return subspace.info, {
        (n, p): bytes(raw(getattr(subspace[n], p))) for n in subspace for p in PARTS
    }


def read_plane(file):
    flat = Flat.load(file)
    parts = [d.parts[n] for d in flat.directions for n in d.parts]
    pieces = [part if isinstance(part, tuple) else (part,) for part in parts]
    values = [bytes(raw(W)) for piece in pieces for W in piece]
    return flat.key, flat.scale, flat.axes, flat.points, values


def read_weights(file):
    checkpoint = Checkpoint(file.parent)
    return {name: bytes(raw(checkpoint.read(name))) for name in checkpoint.tensors}


def read_model(file):
    state = load_model(file.parent, device="cpu").module.state_dict()
    return {name: bytes(raw(W)) for name, W in state.items()}


@pytest.fixture(scope="module")
def files(tiny_pair, tmp_path_factory):
    """Every kind of file with checksums, and what reads it whole."""
    folder = tmp_path_factory.mktemp("files")
    subspace = SafetySubspace.from_pair(*tiny_pair, folder / "S.safetensors", rank=3)
    apply_lox(subspace, tiny_pair[1], folder / "lox", 2)
    save_adapter(subspace, tiny_pair[1], folder / "added", 2, allow_partial=True)
    attack = find_attack("arithmetic", max_steps=1, batch_size=2)
    run_attack(load_model(tiny_pair[1], device="cpu"), attack, folder / "attacked")
    return {
        "subspace": (folder / "S.safetensors", read_subspace),
        "plane": (line().save(folder / "plane.safetensors"), read_plane),
        "checkpoint": (folder / "lox" / "model.safetensors", read_weights),
        "model that is asked": (folder / "lox" / "model.safetensors", read_model),
        "adapter": (folder / "added" / "adapter_model.safetensors", read_weights),
        "attacked model": (folder / "attacked" / "model.safetensors", read_model),
    }


def flipped(file, part, rng):
    """Flip a bit of a file's header or data; return what the file held before."""
    data = bytearray(before := file.read_bytes())
    header = 8 + int.from_bytes(data[:8], "little")
    data[rng.randrange(header) if part == "header" else rng.randrange(header, len(data))] ^= (
        1 << rng.randrange(8)
    )
    file.write_bytes(data)
    return before


def assert_one_line(error, words):
    """Assert that an error is one line that holds these words."""
    assert str(words) in str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize("part", ["header", "data"])
@pytest.mark.parametrize(
    "kind",
    ["subspace", "plane", "checkpoint", "model that is asked", "adapter", "attacked model"],
)
def test_a_flipped_bit_is_found_or_changes_nothing(files, kind, part):
    file, read = files[kind]
    whole, rng, refused = read(file), random.Random(f"{kind} {part}"), 0
    for _ in range(FLIPS):
        before = flipped(file, part, rng)
        try:
            assert read(file) == whole
        except (OSError, ValueError) as error:
            refused += 1
            assert_one_line(error, file.parent)
        finally:
            file.write_bytes(before)
    assert refused > FLIPS / 2
    assert part == "header" or refused == FLIPS


def test_a_flipped_bit_in_a_checkpoint_from_elsewhere_is_found_or_another_model(
    tiny_pair, tmp_path
):
    subspace = SafetySubspace.from_pair(*tiny_pair, rank=3)
    file = shutil.copytree(tiny_pair[1], tmp_path / "aligned") / "model.safetensors"
    whole, fingerprint = read_model(file), Checkpoint(file.parent).fingerprint
    rng = random.Random("elsewhere")
    for part in ("header", "data") * FLIPS:
        before = flipped(file, part, rng)
        try:
            assert part == "data" or read_model(file) == whole
            assert Checkpoint(file.parent).fingerprint != fingerprint
            with pytest.raises(ValueError, match="not the checkpoint this subspace was made from"):
                apply_lox(subspace, file.parent, tmp_path / "lox", 2)
        except (OSError, ValueError) as error:
            assert_one_line(error, file.parent)
        finally:
            file.write_bytes(before)


def test_a_flipped_bit_in_a_store_gives_no_other_value(tmp_path):
    rng, answers = random.Random("store"), {f"key {i}": f"answer {i} " * 9 for i in range(60)}
    with Store(tmp_path) as store:
        store.put_many("answer", answers)
        store.put("run", "key", {"losses": [1.5, 0.5]})
    file, kept, refused = tmp_path / "lox.sqlite", 0, 0
    for _ in range(5 * FLIPS):
        data = bytearray(before := file.read_bytes())
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        file.write_bytes(data)
        try:
            with warnings.catch_warnings(), Store(tmp_path) as store:
                warnings.simplefilter("ignore", DamagedRecord)
                found = store.get_many("answer", answers, str)
                assert found.items() <= answers.items()
                assert store.all("answer").items() <= answers.items()
                assert store.all("run") in ({}, {"key": {"losses": [1.5, 0.5]}})
                kept += len(found) == len(answers)
        except OSError as error:
            refused += 1
            assert_one_line(error, f"{file}: the store cannot be ")
        finally:
            file.write_bytes(before)
    assert 0 < refused < FLIPS
    assert kept > FLIPS


# --- other versions -----------------------------------------------------------------------------


def rewritten(file, **metadata):
    """Write a safetensors file again with other metadata, in a header that is as long."""
    data = file.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] |= metadata
    text = json.dumps(header, separators=(",", ":")).encode().ljust(size)
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])


def older_sums(file):
    """Return the checksums of a file's tensors, without that of its header."""
    with safe_open(file, "pt") as f:
        sums, n = f.metadata()[SUMS], len(f.offset_keys())
    assert len(sums) == (n + 1) * DIGITS
    return sums[: n * DIGITS]


@pytest.mark.parametrize("kind", ["subspace", "plane", "checkpoint", "adapter"])
def test_a_file_from_before_headers_had_checksums_is_read(files, kind):
    file, read = files[kind]
    whole, before = read(file), file.read_bytes()
    rewritten(file, sums=older_sums(file))
    assert read(file) == whole
    file.write_bytes(before)


def test_records_from_before_they_had_checksums_are_read(tmp_path):
    with Store(tmp_path) as store:
        store.put("answer", "key", "an answer")
        with store._db:
            store._db.execute("UPDATE records SET made='2025-06-18 12:00:00.000'")
        assert store.get("answer", "key") == "an answer"


@pytest.mark.parametrize("kind", ["subspace", "store"])
def test_a_file_of_a_newer_lox_kit_is_refused_by_a_verb_and_left_as_it_is(verbs, tmp_path, kind):
    if kind == "subspace":
        file, verb = tmp_path / "S.safetensors", "apply"
        shutil.copy(verbs.factors, file)
        rewritten(file, schema="2", sums=older_sums(file))
        call = [file if argument == verbs.factors else argument for argument in verbs.call(verb)]
    else:
        verb = "asr"
        file = tmp_path / kind / "lox.sqlite"
        Store(file.parent).close()
        with sqlite3.connect(file) as db:
            db.execute("PRAGMA user_version=2")
        call = verbs.call(verb)
    before = file.read_bytes()
    done = verbs.run(tmp_path, verb, call=call)
    assert done.status == 2
    assert str(file) in done.said[-1]
    assert "written by a newer lox_kit (schema 2, here 1): update lox_kit" in done.said[-1]
    assert file.read_bytes() == before
    assert not list((tmp_path / "here").iterdir())
