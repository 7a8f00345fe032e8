import contextlib
import errno
import resource
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from lox_kit.weights import writer
from lox_kit.weights.writer import DTYPE_NAMES, write_tensors


def tensors(side=32):
    """Six square tensors."""
    generator = torch.Generator().manual_seed(0)
    return {f"t{i}": torch.randn(side, side, generator=generator) for i in range(6)}


def write_all(file, values, metadata=None):
    layout = {name: (t.dtype, tuple(t.shape)) for name, t in values.items()}
    write_tensors(file, layout, metadata or {}, values.values())
    return file


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


def test_a_file_that_is_flushed_on_the_way_is_whole(tmp_path, monkeypatch):
    values = tensors()
    monkeypatch.setattr(writer, "FLUSHED", 2 * values["t0"].nbytes)
    read = load_file(write_all(tmp_path / "a.safetensors", values))
    assert all(torch.equal(read[name], tensor) for name, tensor in values.items())


def test_what_does_not_fit_the_layout_is_never_written(tmp_path):
    layout, (first, *_) = {"t0": (torch.float32, (32, 32))}, tensors().values()
    for wrong in ([], [first, first], [first.half()], [first.view(16, 64)]):
        with pytest.raises((AssertionError, ValueError)):
            write_tensors(tmp_path / "a.safetensors", layout, {}, wrong)


def test_room_is_needed_before_the_first_tensor(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    message = r"a.safetensors needs [0-9.]+ kB and .* has 1.0 kB free: make room"
    with pytest.raises(OSError, match=message) as caught:
        write_all(tmp_path / "a.safetensors", tensors())
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_is_one_error_that_names_the_tensor(tmp_path):
    with (
        largest_file(15_000),  # three and a half of them
        pytest.raises(OSError, match=r"a\.safetensors: writing t3 failed"),
    ):
        write_all(tmp_path / "a.safetensors", tensors())
