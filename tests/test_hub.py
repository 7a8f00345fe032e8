"""Hub ids: a cache folder made by hand, and a hub on this machine."""

import hashlib
import json
import os
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub
import pytest
import torch
from checkpoints import factor, run_python, weights
from huggingface_hub import constants
from test_lora_adapter import PLAIN, make_adapter

from lox_kit import Checkpoint, SafetySubspace, apply_lox
from lox_kit.weights import hub, hub_ids

SHA, OLD = "1" * 40, "2" * 40


def put(cache, name, folder, sha=SHA, ref="main"):
    """Put a folder into a hub cache, as a snapshot of links to blobs."""
    repository = cache / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / sha
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir(exist_ok=True)
    for file in folder.iterdir():
        blob = repository / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        shutil.copy(file, blob)
        (snapshot / file.name).symlink_to(os.path.relpath(blob, snapshot))
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / ref).write_text(sha)
    return snapshot


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty hub cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# --- from the cache, offline --------------------------------------------------------------------


def test_a_cached_hub_id_is_a_checkpoint(pair, cache, tmp_path):
    snapshot = put(cache, "school/base", pair.base)
    put(cache, "school/aligned", pair.aligned)
    checkpoint = Checkpoint("school/base")
    assert (checkpoint.name, checkpoint.path) == ("school/base", snapshot)
    assert checkpoint.fingerprint == Checkpoint(pair.base).fingerprint
    subspace = SafetySubspace.from_pair("school/base", "school/aligned", rank=4)
    assert subspace.info["base"] == "school/base"
    lox = weights(apply_lox(subspace, "school/aligned", tmp_path / "lox", 2))
    expected = weights(apply_lox(factor(pair, rank=4), pair.aligned, tmp_path / "local", 2))
    assert all(torch.equal(lox[n], W) for n, W in expected.items())


def test_a_revision_is_a_branch_or_a_commit(pair, cache):
    old = put(cache, "school/base", pair.base, OLD, "before")
    new = put(cache, "school/base", pair.aligned)
    assert Checkpoint("school/base").path == new
    assert Checkpoint("school/base@before").path == Checkpoint(f"school/base@{OLD}").path == old
    with pytest.raises(FileNotFoundError, match="school/base@never: no such folder"):
        Checkpoint("school/base@never")


def test_a_local_folder_of_that_name_comes_first(pair, cache, tmp_path, monkeypatch):
    put(cache, "school/base", pair.aligned)
    shutil.copytree(pair.base, tmp_path / "school" / "base")
    monkeypatch.chdir(tmp_path)
    assert Checkpoint("school/base").fingerprint == Checkpoint(pair.base).fingerprint


def test_what_is_nowhere_is_refused_with_what_was_tried(cache):
    message = f"school/none: no such folder, and as a hub id not in {cache}; HF_HUB_OFFLINE forbids"
    with pytest.raises(FileNotFoundError, match=message) as caught:
        Checkpoint("school/none")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("school/base", ["school/base"]),
        ("school/base@v1", ["school/base"]),
        ("school/base@v1+other/adapter", ["school/base", "other/adapter"]),
        ("sandbox/aligned+school/adapter", ["school/adapter"]),
        ("sandbox/aligned@3", []),
        ("models/here", []),
        ("/models/base", []),
        ("gpt2", []),
        ("", []),
    ],
)
def test_a_name_names_repositories_of_the_hub(name, ids, tmp_path, monkeypatch):
    (tmp_path / "models" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert hub_ids(name) == ids


REFUSED = ["a--b/c", "a/b..c", "a-/b", "a/b-", "é/b", "a/b."]
PATHS = ["./none/here", "../none", "/none/here", "a/b/c", ".hidden/b", ""]


@pytest.mark.parametrize("name", REFUSED + PATHS)
def test_what_reads_as_a_path_or_the_hub_would_not_take_is_never_asked_of_it(name):
    assert not hub.is_hub_id(name)


def test_weights_that_are_not_whole_in_the_cache_are_named(make_pair, cache):
    put(cache, "school/config-only", make_pair().base).joinpath("model.safetensors").unlink()
    shards = put(cache, "school/sharded", make_pair(shards="15KB").base)
    next(shards.glob("*2-of-*.safetensors")).unlink()
    for name in ("school/config-only", "school/sharded"):
        with pytest.raises(FileNotFoundError, match=f"{name}: no whole safetensors weights in"):
            Checkpoint(name)


WORDS = (
    "tokenizer.json vocab.json vocab.txt tokenizer.model spiece.model qwen.tiktoken "
    "tokenizer.model.v3 tekken.json"
).split()


@pytest.fixture
def asked(monkeypatch):
    """Every call that asked the hub, and not the cache alone."""
    calls, real = [], huggingface_hub.snapshot_download

    def watched(*names, **options):
        if not options.get("local_files_only"):
            calls.append(names)
        return real(*names, **options)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", watched)
    return calls


def list_files(cache, name, *more):
    """Leave the list of a repository's files in a cache, as a download of all or some does."""
    repository = cache / f"models--{name.replace('/', '--')}"
    files = {f.name for f in (repository / "snapshots" / SHA).iterdir()} | set(more)
    entry = dict.fromkeys(("lfs_sha256", "lfs_size", "xet_hash")) | {"size": 1, "blob_id": "0"}
    (repository / "trees").mkdir()
    listed = {"format_version": 1, "files": dict.fromkeys(files, entry)}
    (repository / "trees" / f"{SHA}.json").write_text(json.dumps(listed))


@pytest.mark.parametrize("words", WORDS)
def test_weights_config_and_a_tokenizer_of_any_kind_are_whole(pair, cache, asked, tmp_path, words):
    folder = shutil.copytree(pair.base, tmp_path / "model")
    (folder / "tokenizer.json").rename(folder / words)
    snapshot = put(cache, "school/model", folder)
    list_files(cache, "school/model", "README.md", "modeling_own.py", "pytorch_model.bin")
    assert Checkpoint("school/model").path == snapshot
    assert asked == []


def test_what_has_no_tokenizer_is_asked_for_one_and_is_factored_without(
    pair, cache, asked, tmp_path
):
    for name, folder in (("base", pair.base), ("aligned", pair.aligned)):
        copy = shutil.copytree(folder, tmp_path / name)
        for file in copy.glob("tokenizer*"):
            file.unlink()
        put(cache, f"school/{name}", copy)
        list_files(cache, f"school/{name}", "README.md", "tokenizer.json")
    subspace = SafetySubspace.from_pair("school/base", "school/aligned", rank=2)
    assert len(subspace) > 2
    assert {names[0] for names in asked} == {"school/base", "school/aligned"}


def test_what_is_known_to_be_in_part_in_the_cache_is_said_to_be(make_pair, cache):
    shards = put(cache, "school/sharded", make_pair(shards="15KB").base)
    list_files(cache, "school/sharded")
    next(shards.glob("*2-of-*.safetensors")).unlink()
    with pytest.raises(FileNotFoundError, match=f"as a hub id not whole in {cache}; HF_HUB_OFF"):
        Checkpoint("school/sharded")


def test_templates_in_a_folder_of_their_own_are_of_the_checkpoint(pair, cache):
    snapshot = put(cache, "school/model", pair.base)
    before = Checkpoint("school/model").fingerprint
    (snapshot / "additional_chat_templates").mkdir()
    (snapshot / "additional_chat_templates" / "tool_use.jinja").write_text("{{ messages }}")
    checkpoint = Checkpoint("school/model")
    assert "additional_chat_templates/tool_use.jinja" in checkpoint.beside
    assert checkpoint.fingerprint != before


def test_base_and_adapter_may_both_be_hub_ids(pair, cache, tmp_path):
    put(cache, "school/base", pair.base)
    adapter = make_adapter(pair.base, tmp_path / "adapter", **PLAIN)
    put(cache, "school/adapter", adapter)
    both = Checkpoint("school/base+school/adapter")
    assert both.fingerprint == Checkpoint("school/adapter").fingerprint
    assert SafetySubspace.from_pair("school/base", both.name, rank=2).norms.max() > 0


def test_without_huggingface_hub_a_folder_is_asked_for(pair, tmp_path):
    script = """
import sys
sys.modules["huggingface_hub"] = None
from lox_kit import Checkpoint
print(len(Checkpoint(sys.argv[1]).tensors))
try:
    Checkpoint("school/base")
except FileNotFoundError as error:
    print(error)
"""
    count, message = run_python(script, pair.base).stdout.splitlines()
    assert int(count) == len(weights(pair.base))
    assert message.startswith("school/base: no such folder, and hub ids need huggingface_hub")


# --- from a hub ---------------------------------------------------------------------------------


class Hub(BaseHTTPRequestHandler):
    """The few answers of a hub that a snapshot needs."""

    def do_GET(self):
        self.server.asked.append(self.path)
        if "/school/model/" not in self.path:
            self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif "/resolve/" in self.path:
            self.file(self.path.partition(f"/{SHA}/")[2])
        elif "/tree/" in self.path:
            sizes = {name: len(data) for name, data in self.server.files.items()}
            self.json([dict(type="file", path=n, size=s, oid="0") for n, s in sizes.items()])
        else:
            self.json({"id": "school/model", "sha": SHA})

    do_HEAD = do_GET  # noqa: N815

    def json(self, found):
        self.answer(200, json.dumps(found).encode())

    def file(self, name):
        data = self.server.files[name]
        etag = hashlib.sha256(data).hexdigest()
        self.answer(200, data, {"ETag": f'"{etag}"', "X-Repo-Commit": SHA})

    def answer(self, status, data, headers=None):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(pair):
    """A hub on this machine with one model, its card, and files that are not wanted."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as hub_server:
        hub_server.asked = []
        files = {f.name: f.read_bytes() for f in pair.base.iterdir()}
        unwanted = ("pytorch_model.bin", "consolidated.safetensors", "onnx/config.json")
        hub_server.files = files | dict.fromkeys(unwanted, b"unwanted") | {"README.md": b"a card"}
        threading.Thread(target=hub_server.serve_forever, daemon=True).start()
        yield hub_server
        hub_server.shutdown()


OPEN = """
import sys
from lox_kit import Checkpoint
for name in sys.argv[1:]:
    try:
        checkpoint = Checkpoint(name)
        print(checkpoint.fingerprint, *sorted(f.name for f in checkpoint.path.iterdir()))
    except FileNotFoundError as error:
        print("not found:", error)
"""


@pytest.fixture
def open_online(server, tmp_path, monkeypatch):
    """Return a function that opens a checkpoint in a process that may ask the hub."""
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")

    def open_it(*names):
        done = run_python(OPEN, *names)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return open_it


@pytest.mark.slow
def test_a_hub_id_is_downloaded_once(pair, server, open_online, monkeypatch):
    first = open_online("school/model")
    assert first.split()[0] == Checkpoint(pair.base).fingerprint
    assert first.split()[1:] == sorted(["README.md", *(f.name for f in pair.base.iterdir())])
    assert server.asked
    server.asked.clear()
    assert open_online("school/model") == first
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    again, refused = open_online("school/model", "school/other").splitlines()
    assert again == first
    assert "HF_HUB_OFFLINE forbids" in refused
    assert server.asked == []


def test_a_download_that_was_cut_off_is_completed(pair, server, open_online, tmp_path):
    snapshot = put(tmp_path / "cache", "school/model", pair.base)
    (snapshot / "model.safetensors").unlink()
    assert open_online("school/model").split()[0] == Checkpoint(pair.base).fingerprint


@pytest.mark.slow
def test_code_templates_and_shards_of_any_name_are_downloaded(pair, server, open_online):
    more = (
        "modeling_own.py LICENSE own.tiktoken tokenizer.model.v3 additional_chat_templates/t.jinja"
    )
    server.files |= dict.fromkeys(more.split(), b"")
    server.files["part-1.safetensors"] = server.files.pop("model.safetensors")
    shards = dict.fromkeys(weights(pair.base), "part-1.safetensors")
    server.files["model.safetensors.index.json"] = json.dumps({"weight_map": shards}).encode()
    found = set(open_online("school/model").split()[1:])
    assert {*more.replace("/t.jinja", "").split(), "part-1.safetensors"} <= found
    assert not found & {"pytorch_model.bin", "onnx", "consolidated.safetensors"}


def test_pickled_weights_are_not_downloaded_and_what_is_not_there_is_one_line(server, open_online):
    del server.files["model.safetensors"]
    pickled, nowhere = open_online("school/model", "school/other").splitlines()
    assert "no whole safetensors weights" in pickled
    assert nowhere.startswith("not found: school/other: no such folder, and as a hub id not in ")
    assert "nor to be had from http://127.0.0.1:" in nowhere
    assert not [path for path in server.asked if path.endswith(".bin")]
