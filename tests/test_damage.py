"""Files that prove themselves: subspaces, planes, hashes, the store."""

import json
import os
import warnings

import pytest
import torch
from checkpoints import UP, factor, flip_bit
from safetensors import safe_open
from safetensors.torch import save_file

from lox_kit import SafetySubspace, Store, apply_lox, save_adapter
from lox_kit.extrapolation.lox import LowRank
from lox_kit.landscape import Line, Plane
from lox_kit.landscape.directions import Direction
from lox_kit.landscape.flat import Flat, Point
from lox_kit.store import DamagedRecord, MemoryStore
from lox_kit.weights.files import CacheUnusable, file_hash
from lox_kit.weights.sums import checksum


def read_all(file):
    """Return tensors and metadata of a safetensors file."""
    with safe_open(file, "pt") as f:
        return {name: f.get_tensor(name) for name in f.offset_keys()}, f.metadata()


# --- checksums ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 8, 4095, 4096, 4097, 3 * 4096 + 5])
def test_a_checksum_sees_every_bit_and_the_order_of_pages(size):
    data = bytearray(torch.randint(256, (size,), dtype=torch.uint8).numpy())
    whole = checksum(data)
    for position in {0, size // 2, size - 1} if size else ():
        data[position] ^= 16
        assert checksum(data) != whole
        data[position] ^= 16
    assert checksum(data) == whole
    assert size < 8192 or whole != checksum(data[4096:8192] + data[:4096] + data[8192:])


@pytest.fixture
def factored(pair, tmp_path):
    file = tmp_path / "S.safetensors"
    factor(pair, file, rank=4)
    return file


@pytest.mark.parametrize("part", ["U", "S", "Vh", "residual", "info"])
def test_a_flipped_bit_in_a_subspace_file_is_found_when_the_tensor_is_read(
    pair, factored, tmp_path, part
):
    tensor = read_all(factored)[0][f"{UP}.{part}"]
    flip_bit(factored, factored.read_bytes().index(tensor.numpy().tobytes()) + 1)
    subspace = SafetySubspace.load(factored)
    for write in (apply_lox, save_adapter):
        with pytest.raises(ValueError, match=rf"{factored}: {UP}.{part} is damaged, .* checksum"):
            write(subspace, pair.aligned, tmp_path / "out", 3)
    assert not (tmp_path / "out").exists()


def test_a_flat_file_with_a_flipped_bit_is_refused(tmp_path):
    file = line().save(tmp_path / "line.safetensors")
    flip_bit(file, -1)
    with pytest.raises(ValueError, match=r"line.safetensors: .*is damaged"):
        Line.load(file)


# --- what a subspace file says ------------------------------------------------------------------


def rewrite(file, about=None, **tensors):
    """Write a subspace file anew with other metadata or tensors, and no checksums."""
    held, old = read_all(file)
    held |= {f"{UP}.{part}": tensor for part, tensor in tensors.items()}
    held = {name: tensor.contiguous() for name, tensor in held.items() if tensor is not None}
    text = old["lox_kit"] if about is None else json.dumps(about)
    save_file(held, file, metadata={"lox_kit": text})


@pytest.mark.parametrize("schema", ["2", "x", "-1", ""])
def test_a_subspace_file_of_a_newer_layout_is_refused(factored, schema):
    held, about = read_all(factored)
    save_file(held, factored, metadata={"lox_kit": about["lox_kit"], "schema": schema})
    with pytest.raises(ValueError, match=r"newer lox_kit \(schema .*, here 1\): update lox_kit"):
        SafetySubspace.load(factored)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("S", lambda S: None, "S should be .* and it is not there"),
        ("S", lambda S: S.long(), r"S should be torch.float32 \(4,\) and it is torch.int64"),
        ("U", lambda U: U[:, :2], r"U should be .*\(48, 4\) and it is .*\(48, 2\)"),
        ("U", lambda U: -3 * U, "U is not orthonormal"),
        ("U", lambda U: U[:, [0, 0, 2, 3]], "U is not orthonormal"),
        ("Vh", lambda V: V * float("nan"), "Vh is not orthonormal"),
        ("Vh", lambda V: 1.1 * V, "Vh is not orthonormal"),
        ("S", lambda S: 1e6 * S, "S is of length .*, the matrix of"),
        ("S", lambda S: S.flip(0), "S is not finite, descending and at least 0"),
        ("S", lambda S: S - S[1], "S is not finite, descending and at least 0"),
        ("S", lambda S: S * float("nan"), "S is not finite, descending and at least 0"),
        ("info", lambda i: torch.tensor([float("nan"), 0.0]), "info is of a matrix with norm nan"),
        ("info", lambda i: torch.tensor([1.0, 7.0]), "info is of a method 7"),
        ("residual", lambda r: r * float("nan"), "residual is not at least 0"),
    ],
    ids=lambda x: x if isinstance(x, str) and len(x) < 9 else "",
)
def test_factors_that_are_none_of_the_matrix_are_refused(
    pair, factored, tmp_path, part, change, message
):
    rewrite(factored, **{part: change(read_all(factored)[0][f"{UP}.{part}"])})
    with pytest.raises(ValueError, match=f"{factored}: {UP}.{message}"):
        apply_lox(SafetySubspace.load(factored), pair.aligned, tmp_path / "out", 3)
    assert not (tmp_path / "out").exists()


def test_a_file_that_holds_all_singular_values_as_well_is_read_as_one_that_does_not(factored):
    before = SafetySubspace.load(factored)
    kept = before[UP].S
    rewrite(factored, before.info | {"spectrum": "full"}, spectrum=torch.ones(32))
    assert torch.equal(SafetySubspace.load(factored)[UP].S, kept)


@pytest.mark.parametrize("rank", [1, "full"])
def test_what_is_factored_passes_of_any_rank_and_zero_matrices_too(pair, tmp_path, rank):
    file = tmp_path / "S.safetensors"
    made = factor(pair, file, rank=rank)
    rewrite(file)  # as a file of before had no checksums
    again = SafetySubspace.load(file)
    assert all(torch.equal(again[name].U, made[name].U) for name in made)


# --- what a plane file says ---------------------------------------------------------------------


def line():
    parts = {"a": torch.ones(2, 3), "b": LowRank(torch.ones(4, 1), torch.ones(1, 2))}
    direction = Direction(parts, "key", "name")
    return Line((direction,), (2.0, 0.0, 1.0), "L2", ("x",), {"o": Point((0.0,), 0.0)}, "k", "o")


def saved_line(tmp_path, about=None, **changed):
    file = line().save(tmp_path / "line.safetensors")
    held, old = read_all(file)
    held |= {name.replace("_", "/"): tensor for name, tensor in changed.items()}
    held = {name: tensor for name, tensor in held.items() if tensor is not None}
    about = json.dumps({**json.loads(old["lox_kit_flat"]), **(about or {})})
    save_file(held, file, metadata={"lox_kit_flat": about})
    return file


NAN = float("nan")


@pytest.mark.parametrize(
    ("about", "changed"),
    [
        ({"scale": [NAN, 0.0, 1.0]}, {}),
        ({"scale": [1.0, 0.0]}, {}),
        ({"scale": [0.0, 0.0, 1.0]}, {}),
        ({"unit": "metre"}, {}),
        ({"axes": ["x", "y"]}, {}),
        ({"points": {"o": {"at": [0.0, 0.0], "distance": 0.0}}}, {}),
        ({"directions": [["key", "name"]] * 2}, {}),
        ({}, {"0_dense_a": torch.full((2, 3), NAN)}),
        ({}, {"0_left_b": torch.full((4, 1), NAN)}),
        ({}, {"0_right_b": None}),
        ({}, {"0_left_b": None}),
        ({}, {"0_right_b": torch.ones(2, 2)}),
        ({}, {"1_dense_a": torch.ones(2, 3)}),
        ({}, {"-1_dense_a": torch.ones(2, 3)}),
        ({}, {"0_other_a": torch.ones(2, 3)}),
        ({}, {"plain": torch.ones(2, 3)}),
        ({}, {"0_dense_a": None, "0_left_b": None, "0_right_b": None, "x": torch.ones(1)}),
        ({}, {"0_dense_a": None, "0_left_b": None, "0_right_b": None}),
    ],
    ids=str,
)
def test_a_plane_file_that_is_none_is_one_error_that_names_it(tmp_path, about, changed):
    file = saved_line(tmp_path, about, **changed)
    with pytest.raises(ValueError, match=f"{file}: "):
        Flat.load(file)


def test_a_plane_file_of_before_is_read_and_one_of_a_newer_layout_is_not(tmp_path):
    file = saved_line(tmp_path)
    assert Line.load(file).points == line().points
    held, about = read_all(file)
    save_file(held, file, metadata=about | {"schema": "2"})
    with pytest.raises(ValueError, match="newer lox_kit"):
        Plane.load(file)


# --- remembered hashes --------------------------------------------------------------------------


@pytest.fixture
def large(tmp_path, monkeypatch):
    monkeypatch.setenv("LOX_KIT_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "weights"
    file.write_bytes(b"a" * (2 << 20))
    return file


def test_other_content_of_the_same_size_and_time_has_another_hash(large):
    first, stat = file_hash(large), large.stat()
    large.write_bytes(b"b" * (2 << 20))
    os.utime(large, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as cp -p and rsync -t do
    assert file_hash(large) != first
    other = large.with_name("other")
    other.write_bytes(b"c" * (2 << 20))
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    os.replace(other, large)
    assert file_hash(large) != first


@pytest.mark.parametrize("damage", [b"", b"0", b"\xff\xfe", b"0" * 64, b"0" * 129])
def test_a_damaged_note_is_made_anew(large, tmp_path, damage):
    first = file_hash(large)
    (note,) = (tmp_path / "cache" / "hashes").iterdir()
    good = note.read_bytes()
    note.write_bytes(damage)
    assert file_hash(large) == first
    assert note.read_bytes() == good


@pytest.mark.parametrize("cache", ["/proc/no", "a file"])
def test_without_a_cache_one_warning_and_the_same_hash(large, tmp_path, monkeypatch, cache):
    expected = file_hash(large)
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("LOX_KIT_CACHE", str(tmp_path / cache))
    with pytest.warns(CacheUnusable, match="large files are hashed anew each time") as told:
        found = [file_hash(large), file_hash(large)]
    assert found == [expected] * 2
    assert len(told) == 1


# --- the store ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "like", "fits"),
    [
        ([1, 2.5], [(int, float)], True),
        ([1, "2"], [(int, float)], False),
        ([[1], []], [[int]], True),
        ({"a": {"n": 1}, "b": {"n": 2}}, {...: {"n": int}}, True),
        ({"a": {"n": 1}, "b": {}}, {...: {"n": int}}, False),
        ({}, {...: int}, False),
        ({"n": True}, {"n": int}, False),
        ({"n": True}, {"n": bool}, True),
        ([float("nan")], [float], False),
        ([], {...: int}, False),
    ],
)
def test_values_are_held_against_a_shape(tmp_path, value, like, fits):
    with Store(tmp_path) as store, warnings.catch_warnings():
        warnings.simplefilter("ignore", DamagedRecord)
        store.put("kind", "key", value)
        assert (store.get("kind", "key", like) == value) is fits
    memory = MemoryStore()
    memory.put("kind", "key", value)
    assert memory.get("kind", "key", like) == value
