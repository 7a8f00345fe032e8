"""Hostile and broken servers: a run of a judge ends in time and in little memory, and keeps all."""

import contextlib
import gzip
import os
import signal
import socket
import threading
import time

import pytest
from checkpoints import run_python
from judge_server import JudgeServer, answers
from processes import Lox

from lox_kit import Store
from lox_kit.judges import JudgingError, Limits, PolicyJudge

OK, CHUNKED = b"HTTP/1.1 200 OK\r\n", b"Transfer-Encoding: chunked\r\n\r\n"
NO, LARGE = b"HTTP/1.1 401 No\r\n", b"Content-Length: 1000000000\r\n\r\n"
BOMB = gzip.compress(bytes(1 << 27), 1)  # .6 MB that unpack to 134
ZIPPED = b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(BOMB) + BOMB
FAST = {  # what is sent first, and what goes on as fast as it can
    "large refusal": (NO + LARGE, bytes(1 << 20)),
    "large reply": (OK + LARGE, bytes(1 << 20)),
    "zipped refusal": (NO + ZIPPED, b""),
    "zipped reply": (OK + ZIPPED, b""),
    "endless header": (OK + b"A: ", b"b" * (1 << 20)),
    "endless headers": (OK, b"A: b\r\n" * 10_000),
    "endless chunk size": (OK + CHUNKED, b"0" * (1 << 20)),
    "endless trailers": (OK + CHUNKED + b"0\r\n", b"A: b\r\n" * 10_000),
    "endless beginnings": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000),
}
SLOW = {  # and what goes on a piece at a time
    "status": (b"HTTP/1.1 2", b"0"),
    "header": (OK + b"A: ", b"b"),
    "beginnings": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "chunk extension": (OK + CHUNKED + b"5;", b"a"),
    "chunks": (OK + CHUNKED, b"1\r\n \r\n"),
    "trailers": (OK + CHUNKED + b"0\r\n", b"A: b\r\n"),
    "refusal": (NO + LARGE, b" "),
}


@contextlib.contextmanager
def sending(first: bytes, piece: bytes, pause: float = 0.0):
    """Give the address of a server that sends this to everyone, as long as anyone listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer(client: socket.socket) -> None:
            with client, contextlib.suppress(OSError):
                client.recv(1 << 16)
                client.sendall(first)
                while piece:
                    client.sendall(piece)
                    time.sleep(pause)
                client.recv(1)

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = server.accept()
                    threading.Thread(target=answer, args=(client,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        server.shutdown(socket.SHUT_RDWR)


def assert_ends(url: str) -> None:
    """Assert that a judge that asks there ends soon after its deadline, and says why."""
    judge = PolicyJudge(base_url=url, limits=Limits(2, tries=1, timeout=0.3))
    judge.check(None, [])
    start = time.monotonic()
    with pytest.raises(JudgingError, match=r"stopped after 0 of 2 verdicts: .*after 1 tries"):
        judge.judge(*answers(2))
    assert time.monotonic() - start < 3


@pytest.mark.parametrize("what", SLOW)
def test_the_deadline_holds_against_a_drip_of(what):
    with sending(*SLOW[what], 0.05) as url:
        assert_ends(url)


ASK = """
import resource, sys
sys.path.insert(0, "tests/faults")
from test_network import FAST, assert_ends, sending
def most():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024  # MB
with sending(b"HTTP/1.1 500 No\\r\\n\\r\\n", b"") as url:
    assert_ends(url)
for what, sent in FAST.items():
    before = most()
    with sending(*sent) as url:
        assert_ends(url)
    print(what, most() - before, flush=True)
"""


def test_whatever_a_server_sends_takes_less_than_50_mb_and_no_longer_than_the_deadline():
    done = run_python("import sys; sys.path.insert(0, 'tests')" + ASK)
    grown = {line.rpartition(" ")[0]: int(line.split()[-1]) for line in done.stdout.splitlines()}
    assert list(grown) == list(FAST), done.stderr
    assert max(grown.values()) < 50, grown


@pytest.mark.parametrize(
    ("asked", "fault"),
    [("judge", "slow headers"), ("judge", "429"), ("model", "silent"), ("model", "slow error")],
)
def test_after_ctrl_c_a_verb_is_gone_within_seconds(verbs, tmp_path, asked, fault):
    with JudgeServer(dict.fromkeys(range(2), fault)) as server:
        server.retry_after = "50"
        (tmp_path / "asked.txt").write_text("request 0\nrequest 1\n")
        call = ["asr", verbs.pair[1], "--judge", "policy:m", "--base-url", server.url]
        if asked == "model":
            call = ["asr", "--served", server.url, "--model", "m", "--judge", "keyword"]
        call += ["--prompts", tmp_path / "asked.txt", "--max-new-tokens", 2]
        running = Lox(tmp_path, verbs.cache, call)
        while len(server.asked) < 2:
            assert running.process.is_alive()
            time.sleep(0.02)
        time.sleep(0.2)
        start = time.monotonic()
        os.kill(running.process.pid, signal.SIGINT)
        done = running.wait()
    assert time.monotonic() - start < 4  # 2 on a machine that has nothing else to do
    assert done.status == 130
    assert done.said[-1] == "stopped; what was finished is kept."


def test_a_key_reaches_no_proxy_and_no_other_machine_in_clear(verbs, tmp_path, monkeypatch):
    key = "sk-test-4711-secret"
    (tmp_path / "asked.txt").write_text("request 0\n")
    with JudgeServer() as server, JudgeServer() as proxy:
        environment = {"OPENAI_API_KEY": key, "http_proxy": proxy.url.removesuffix("/v1")}
        call = ["asr", verbs.pair[1], "--judge", "policy:m", "--prompts", tmp_path / "asked.txt"]
        for url, said in (("http://judge.example.org/v1", "in clear"), (server.url, "")):
            options = ["--base-url", url, "--max-new-tokens", 2]
            done = Lox(tmp_path, verbs.cache, [*call, *options], environment=environment).wait()
            assert (done.status == 0) == (url == server.url), done
            assert said in done.said[-1]
            assert not proxy.requests
        assert server.keys == {f"Bearer {key}"}


def test_refused_questions_are_kept_once_another_is_answered_and_counted_as_none_before(tmp_path):
    with Store(tmp_path) as store, JudgeServer(dict.fromkeys(range(3), "400")) as server:

        def judged(n):
            return PolicyJudge(base_url=server.url).judge(*answers(n), store=store)

        message = r"after 0 of 3 verdicts: all 3 requests were refused \(the last: .* 400: 400"
        with pytest.raises(JudgingError, match=message):
            judged(3)
        assert store.count("verdict") == 0
        first = judged(5)
        assert [v.refused for v in first] == [True] * 3 + [False] * 2
        assert judged(5) == first
        assert sum(server.asked.values()) == 3 + 5
