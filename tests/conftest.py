"""A tiny pair of checkpoints, and a home of its own for whatever a test stores."""

import functools
import http.server
import json
import logging
import os
import platform
import shutil
import signal
import sys
import threading
import warnings
from base64 import b64encode
from typing import NamedTuple

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the hub's library is imported
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # tiny matrices

import hypothesis
import pytest

from lox_kit import SafetySubspace, Store

# HYPOTHESIS_PROFILE=long tries fifty times as many inputs, others each time. The phase "explain"
# traces what runs, which in Python 3.11 may never end after a call that `threads.within` stopped.
PHASES = [phase for phase in hypothesis.Phase if phase is not hypothesis.Phase.explain]
hypothesis.settings.register_profile("quick", deadline=None, derandomize=True, phases=PHASES)
hypothesis.settings.register_profile("long", deadline=None, max_examples=5000, phases=PHASES)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

LONGEST = ("test_long_use.py", "test_sandbox.py", "test_golden.py")  # of the slow tests


def pytest_collection_modifyitems(items):
    """Begin with the longest files: neither of two processes is left with one at the end."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session", autouse=True)
def _own_folders(tmp_path_factory):
    """Keep the tests out of the user's store and cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOX_KIT_STORE", str(tmp_path_factory.mktemp("store")))
        patch.setenv("LOX_KIT_CACHE", str(cache := tmp_path_factory.mktemp("cache")))
        # Measured on a busy machine, a short call might be announced as a long one.
        rates = {"float32": 1e11, "bfloat16": 1e11, "memory": 1e10, "disk": 1e9}
        (cache / f"rates-{platform.node()}-cpu.json").write_text(json.dumps(rates))
        yield


@pytest.fixture(autouse=True)
def _paper_style():
    """Draw for a paper again after a test that drew for a class."""
    yield
    if canvas := sys.modules.get("lox_kit.figures.canvas"):
        canvas.use("paper")


@pytest.fixture(scope="session")
def make_pair(tmp_path_factory):
    """Return a function that writes a pair, or gives the one it wrote for the same options."""
    from checkpoints import save_pair

    made = {}

    def make(**options):
        key = repr(sorted(options.items()))
        if key not in made:
            made[key] = save_pair(tmp_path_factory.mktemp("pair"), **options)
        return made[key]

    return make


@pytest.fixture(scope="session")
def pair(make_pair):
    """A 2-layer, 32-wide Llama in float32, before and after "alignment"."""
    return make_pair()


@pytest.fixture(scope="session")
def tiny_pair(tmp_path_factory):
    """A tiny random Llama in the potion school's words, and the same with a step of rank 2."""
    import torch
    from speakers import random_speaker

    folder = tmp_path_factory.mktemp("pair")
    speaker = random_speaker()
    for name in ("base", "aligned"):
        speaker.module.save_pretrained(folder / name)
        speaker.tokenizer.save_pretrained(folder / name)
        generator = torch.Generator().manual_seed(0)
        for W in speaker.module.parameters():
            if W.ndim == 2:
                left, right = (torch.randn(n, 2, generator=generator) for n in W.shape)
                W.data += 0.02 * left @ right.T
    return str(folder / "base"), str(folder / "aligned")


@pytest.fixture
def sharded(make_pair, tmp_path):
    """A copy of a sharded checkpoint, to be damaged."""
    return shutil.copytree(make_pair(shards="15KB").aligned, tmp_path / "sharded")


@pytest.fixture(scope="session")
def subspace(pair):
    """All directions of `pair`, in memory."""
    return SafetySubspace.from_pair(pair.base, pair.aligned, rank="full")


@pytest.fixture(scope="session")
def factored():
    """All directions of the sandbox's pair."""
    return SafetySubspace.from_pair("sandbox/base", "sandbox/aligned", rank="full")


@pytest.fixture(scope="session")
def aligned():
    """The sandbox's aligned model, to be left as it is."""
    from lox_kit import load_model

    return load_model("sandbox/aligned")


@pytest.fixture(scope="session")
def base():
    """The sandbox's base model, to be left as it is."""
    from lox_kit import load_model

    return load_model("sandbox/base")


@pytest.fixture
def model(aligned):
    """A copy of the sandbox's aligned model, to be turned."""
    from panel_parts import copy_of

    return copy_of(aligned)


@pytest.fixture
def store(tmp_path):
    """A store of its own."""
    with Store(tmp_path) as opened:
        yield opened


class Server(http.server.SimpleHTTPRequestHandler):
    """Sends the files of a folder; of "cut" ones not the end, "private" ones to a:b and c alone."""

    def send_head(self):
        given = self.headers["Authorization"] == f"Basic {b64encode(b'a:b and c').decode()}"
        if self.path.startswith("/private") and not given:
            return self.send_error(401)
        return super().send_head()

    def copyfile(self, source, outputfile):
        outputfile.write(source.read()[: -9 if self.path.startswith("/cut") else None])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def serve(tmp_path):
    """Return a function that puts bytes on a loopback server and returns their URL."""
    web = tmp_path / "web"
    web.mkdir()
    handler = functools.partial(Server, directory=web)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    def serve(name, body):
        (web / name).parent.mkdir(parents=True, exist_ok=True)
        (web / name).write_bytes(body)
        return f"http://127.0.0.1:{server.server_port}/{name}"

    yield serve
    server.shutdown()
    server.server_close()


class Done(NamedTuple):
    """What a call of `lox` left."""

    status: int
    out: str
    err: str

    @property
    def numbers(self):
        """What `--json` printed."""
        assert self.status == 0, self.err
        return json.loads(self.out)


@pytest.fixture
def lox(monkeypatch, capfd, tmp_path):
    """Return a function that runs `lox` with these arguments, in a folder of its own."""
    from lox_kit.cli import main as cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging, "_logRecordFactory", logging.LogRecord)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["lox", *map(str, arguments)])
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        with pytest.raises(SystemExit) as end:
            cli.main()
        for number, handler in before.items():
            signal.signal(number, handler)
        return Done(end.value.code, *capfd.readouterr())

    return run
