"""A file from the network."""

from __future__ import annotations

import base64
import urllib.request
from http.client import HTTPResponse
from pathlib import Path
from urllib.parse import unquote, urlsplit

from lox_kit.threads import OnStage, tell

CHUNK = 1 << 20  # bytes read from the network at a time
PATIENCE = 30.0  # seconds without a byte


def without_login(url: str) -> str:
    """Return a URL without the user and password that may stand in it, to be shown."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def ask(url: str) -> HTTPResponse:
    """Return the answer to a URL, still to be read; a user and password in it are sent along.

    Raises
    ------
    OSError, HTTPException
        If there is none, or it is an error.
    """
    parts, request = urlsplit(url), urllib.request.Request(without_login(url))
    if parts.username:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        coded = base64.b64encode(login).decode()
        request.add_unredirected_header("Authorization", f"Basic {coded}")
    return urllib.request.urlopen(request, timeout=PATIENCE)


def download(url: str, file: Path, what: str, on_stage: OnStage | None = None) -> None:
    """Write what a URL holds to a file, which is not whole if this fails: see `folders.whole`.

    Parameters
    ----------
    what : str
        What `on_stage` is told, with the bytes so far and in all (0 where the server does not say).

    Raises
    ------
    OSError, HTTPException
        As `ask`, or if the connection ends too early.
    """
    with ask(url) as answer, file.open("wb") as out:
        total, done = int(answer.headers.get("Content-Length") or 0), 0
        while part := answer.read(CHUNK):
            done += out.write(part)
            tell(on_stage, what, done, total)
    if total and done != total:
        raise OSError(f"the connection ended after {done} of {total} bytes")
