"""JupyterLab in headless Chromium: a server of its own, a page, and the page's kernel."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from jupyter_client import BlockingKernelClient
from playwright.sync_api import Browser, Page

from lox_kit.cli.lab import OURS

TOKEN = "lox"
OPEN = "__import__('lox_kit.widgets.setting').widgets.setting._open"  # in the kernel, by kind
ALIVE = "reversed(list(__import__('ipywidgets').widgets.widget._instances.values()))"
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run
    --disable-background-networking --disable-component-update --disable-sync""".split()
FOLDERS = """JUPYTER_CONFIG_DIR JUPYTER_DATA_DIR JUPYTER_RUNTIME_DIR IPYTHONDIR
    JUPYTERLAB_SETTINGS_DIR JUPYTERLAB_WORKSPACES_DIR LOX_KIT_STORE""".split()
IDLE = """() => {
    const app = window.jupyterapp;
    const context = app?.shell.currentWidget?.context?.sessionContext;
    return context?.session?.kernel?.status === 'idle';
}"""


class Lab:
    """A running JupyterLab server whose files are all in one folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._environment = os.environ | {name: str(folder / name.lower()) for name in FOLDERS}
        self._environment["JUPYTER_CONFIG_PATH"] = str(OURS)
        (folder / "notebooks").mkdir()

    @contextlib.contextmanager
    def running(self) -> Iterator[Lab]:
        """Start the server; end it afterwards."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [
            *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
            *("--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0"),
            *(f"--IdentityProvider.token={TOKEN}", "--LabApp.expose_app_in_browser=True"),
            f"--ServerApp.root_dir={self.folder / 'notebooks'}",
        ]
        log = self.folder / "server.log"
        with log.open("w") as out:
            server = subprocess.Popen(command, env=self._environment, stdout=out, stderr=out)
        try:
            self._wait_for(server, log)
            yield self
        finally:
            server.terminate()
            server.wait(30)

    def _wait_for(self, server: subprocess.Popen, log: Path) -> None:
        """Wait until the server answers."""
        end = time.monotonic() + 120
        while time.monotonic() < end and server.poll() is None:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.url}/api/status?token={TOKEN}", timeout=5).close()
                return
            time.sleep(0.2)
        raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")

    def kernel(self) -> BlockingKernelClient:
        """Return a client of the one kernel that runs."""
        (file,) = (self.folder / "jupyter_runtime_dir").glob("kernel-*.json")
        client = BlockingKernelClient(connection_file=str(file))
        client.context.rcvhwm = 0  # else what panels say while nobody listens crowds out the rest
        client.load_connection_file()
        client.start_channels()
        client.wait_for_ready(timeout=60)
        return client


def evaluate(kernel: BlockingKernelClient, expression: str):
    """Return the value of an expression in the kernel, as JSON can hold it."""
    code = f"import json as _json; _value = _json.dumps({expression})"
    reply = kernel.execute_interactive(
        code, silent=True, user_expressions={"value": "_value"}, timeout=60
    )
    assert reply["content"]["status"] == "ok", reply["content"].get("evalue")
    text = reply["content"]["user_expressions"]["value"]["data"]["text/plain"]
    return json.loads(eval(text))  # the repr of a str


def state_of(kind: str) -> str:
    """Return the expression that is, in the kernel, the state of the newest panel of a kind."""
    found = f"type(getattr(w, 'state', None)).__name__ == '{kind}'"
    return f"next(w.state for w in {ALIVE} if {found})"


class Watched:
    """A page, with what it asked of the network and what its console complained of."""

    def __init__(self, browser: Browser, width: int = 1280, height: int = 900):
        self.page: Page = browser.new_page(viewport={"width": width, "height": height})
        self.left: list[str] = []  # requests for other machines
        self.errors: list[str] = []
        self.page.route("**/*", self._check)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._listen)

    def _check(self, route) -> None:
        """Let only requests for this machine through."""
        url = route.request.url
        if url.startswith(("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:")):
            route.continue_()
        else:
            self.left.append(url)
            route.abort()

    def _listen(self, message) -> None:
        if message.type == "error":
            self.errors.append(f"{message.text} ({message.location.get('url', '')})")

    def open(self, lab: Lab, notebook: str) -> None:
        """Open a notebook of the lab's folder and wait for its kernel."""
        self.page.goto(f"{lab.url}/lab/tree/{notebook}?token={TOKEN}&reset")
        self.page.wait_for_selector(".jp-Notebook", timeout=120_000)
        self.page.wait_for_function(IDLE, timeout=120_000)

    def run(self, sentinel: str) -> None:
        """Run all cells and wait until the last one has printed the sentinel."""
        self.page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
        self.page.wait_for_selector(
            f".jp-OutputArea-output:has-text('{sentinel}')", timeout=300_000
        )
