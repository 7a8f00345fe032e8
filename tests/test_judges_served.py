"""The real client and a real server: `transformers serve` on loopback, with a sandbox model."""

import contextlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from checkpoints import ROOT

from lox_kit import load_model, measure_asr, sandbox_prompts
from lox_kit.models import ChatModel, Limits

SANDBOX = ROOT / "lox_kit" / "sandbox" / "seed0" / "aligned"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a server that loads whichever checkpoint a request names."""
    command = shutil.which("transformers", path=Path(sys.executable).parent)
    assert command, "the test extra installs transformers[serving]"
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]  # nobody listens there
    log = tmp_path_factory.mktemp("serve") / "log"
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with log.open("w") as out:
        process = subprocess.Popen([command, "serve", *options], stdout=out, stderr=out)
    try:
        end = time.monotonic() + 120
        while time.monotonic() < end:
            assert process.poll() is None, log.read_text()
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
                break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(20)


def test_what_is_measured_over_the_network_is_what_is_measured_at_home(server, monkeypatch, store):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    prompts = sandbox_prompts(limit=12) + sandbox_prompts("allowed", limit=4)
    chat = ChatModel(str(SANDBOX), base_url=server, limits=Limits(2))
    options = {"max_new_tokens": 24, "store": store}
    there = measure_asr(chat, prompts, ["target"], **options)
    here = measure_asr(load_model("sandbox/aligned"), prompts, ["target"], **options)
    assert there.responses == here.responses
    assert there.summary() == here.summary()
    assert chat.calls == len(prompts) == store.count("reply")
    assert chat.tokens > 10 * len(prompts)
    assert measure_asr(chat, prompts, ["target"], **options).responses == here.responses
    assert chat.calls == len(prompts)
