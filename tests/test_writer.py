import contextlib
import errno
import resource
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from lox_kit.weights.writer import DTYPE_NAMES, SafetensorsStream

SIDES = {32: "4 KB", 512: "1 MiB", 600: "1.4 MB"}  # of square tensors in float32
sizes = pytest.mark.parametrize("side", SIDES, ids=SIDES.values())


def tensors(seed=0, side=32):
    """Six tensors of one size."""
    generator = torch.Generator().manual_seed(seed)
    return {f"t{i}": torch.randn(side, side, generator=generator) for i in range(6)}


def layout(values):
    return {name: (t.dtype, tuple(t.shape)) for name, t in values.items()}


def write_all(file, values, metadata=None):
    with SafetensorsStream(file, layout(values), metadata or {}) as stream:
        for name in list(stream.missing):
            stream.write(name, values[name])
    return file


def cut_off(file, values, after=0, *, torn=0, metadata=None, group=1):
    """Leave what a killed run leaves: `after` whole tensors more and `torn` bytes of the next.

    Returns what was missing when the run began.
    """
    stream = SafetensorsStream(file, layout(values), metadata or {}, group=group)
    missing = list(stream.missing)
    with contextlib.suppress(KeyboardInterrupt), stream:
        for name in missing[:after]:
            stream.write(name, values[name])
        raise KeyboardInterrupt
    with stream.partial.open("ab") as f:
        f.write(b"x" * torn)
    return missing


@contextlib.contextmanager
def largest_file(size):
    """Let the kernel refuse to write more into a file, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("dtype", DTYPE_NAMES, ids=str)
def test_the_safetensors_library_reads_back_the_same_bytes(tmp_path, dtype):
    values = {
        "matrix": torch.arange(12).reshape(3, 4).to(dtype),
        "scalar": torch.tensor(1).to(dtype),
        "empty": torch.zeros(0, 3).to(dtype),
        "transposed": torch.arange(6).reshape(2, 3).to(dtype).T,
    }
    read = load_file(write_all(tmp_path / "a.safetensors", values))
    assert read.keys() == values.keys()
    for name, t in values.items():
        assert read[name].dtype == dtype
        assert read[name].shape == t.shape
        raw = [x.contiguous().reshape(-1).view(torch.uint8) for x in (read[name], t)]
        assert torch.equal(*raw)


def test_the_header_carries_the_metadata_and_the_order(tmp_path):
    values = dict(reversed(tensors().items()))
    file = write_all(tmp_path / "new" / "a.safetensors", values, {"made": "hier, ça va"})
    with safe_open(file, "pt") as f:
        about = f.metadata()
        assert about.pop("sums").isalnum()
        assert about == {"format": "pt", "made": "hier, ça va"}
        assert list(f.offset_keys()) == list(values)


@sizes
@pytest.mark.parametrize("torn", [0, 100])
@pytest.mark.parametrize("after", [0, 2, 6])
def test_a_cut_off_file_is_taken_up_after_its_last_whole_tensor(tmp_path, after, torn, side):
    values = tensors(side=side)
    whole = write_all(tmp_path / "whole.safetensors", values)
    file = tmp_path / "a.safetensors"
    cut_off(file, values, after, torn=torn)
    assert not file.exists()
    with SafetensorsStream(file, layout(values), {}) as stream:
        assert stream.missing == list(values)[after:]
        for name in list(stream.missing):
            stream.write(name, values[name])
    assert file.read_bytes() == whole.read_bytes()
    assert not stream.partial.exists()


@sizes
def test_what_was_written_is_in_the_file_at_once(tmp_path, side):
    file, values = tmp_path / "a.safetensors", tensors(side=side)
    with SafetensorsStream(file, layout(values), {}) as stream:
        for name, t in values.items():
            stream.write(name, t)
            assert stream.partial.read_bytes().endswith(t.numpy().tobytes())


def test_groups_are_kept_whole(tmp_path):
    values = tensors()
    cut_off(tmp_path / "a.safetensors", values, after=5, group=2)
    assert cut_off(tmp_path / "a.safetensors", values, group=2) == ["t4", "t5"]


def test_closing_too_early_is_refused(tmp_path):
    stream = SafetensorsStream(tmp_path / "a.safetensors", layout(tensors()), {})
    with pytest.raises(ValueError, match="6 tensors were not written"), stream:
        pass
    assert not (tmp_path / "a.safetensors").exists()


@pytest.mark.parametrize("metadata", [{}, {"seed": "1"}])
def test_a_partial_file_of_another_recipe_is_not_taken_up(tmp_path, metadata):
    file, values = tmp_path / "a.safetensors", tensors()
    cut_off(file, values, after=3, metadata={"seed": "0"})
    other = tensors(seed=1)
    assert load_file(write_all(file, other, metadata))["t0"].equal(other["t0"])


SQUARE = torch.zeros(32, 32)


@pytest.mark.parametrize(
    ("values", "name", "tensor", "message"),
    [
        (tensors(), "t1", SQUARE, "t1 was written where t0 belongs"),
        ({}, "t0", SQUARE, "t0 was written where nothing belongs"),
        (tensors(), "t0", SQUARE.half(), "t0: the layout says torch.float32"),
        (tensors(), "t0", SQUARE.view(16, 64), r"\(32, 32\), the .* torch.float32 \(16, 64\)"),
    ],
    ids=["order", "number", "dtype", "shape"],
)
def test_what_does_not_fit_the_layout_is_refused(tmp_path, values, name, tensor, message):
    stream = SafetensorsStream(tmp_path / "a.safetensors", layout(values), {})
    with pytest.raises(ValueError, match=message), stream:
        stream.write(name, tensor)
    assert stream.missing == list(values)


def test_room_is_needed_for_what_is_not_there_yet_before_the_first_tensor(tmp_path, monkeypatch):
    disk, (file, values) = SimpleNamespace(free=1000), (tmp_path / "a.safetensors", tensors())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: disk)
    message = r"needs [0-9.]+ kB and .* has [0-9.]+ kB free: make room"
    with pytest.raises(OSError, match=message) as caught:
        SafetensorsStream(file, layout(values), {})
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []
    disk.free = 10**9
    cut_off(file, values, after=5)
    disk.free = 5000  # one tensor's
    assert write_all(file, values).exists()


@sizes
def test_a_disk_that_fills_keeps_what_was_written(tmp_path, side):
    file, values = tmp_path / "a.safetensors", tensors(side=side)
    with (
        largest_file(14 * side * side + 700),  # three and a half of them
        pytest.raises(OSError, match=r"writing t3 failed .* run the same call again"),
    ):
        write_all(file, values)
    assert not file.exists()
    assert cut_off(file, values) == ["t3", "t4", "t5"]
    assert load_file(write_all(file, values))["t3"].equal(values["t3"])
