"""The HTTP client under the `openai` client: one deadline and one limit of bytes for an exchange.

Both hold whatever the status is, and from the first byte of the headers on. The `openai` client
tries again after 408, 409, 429, 5xx, lost connections and what is raised here; it takes a second to
import.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache

from openai import DefaultAsyncHttpxClient

from .completions import FILTERED, LONGEST_WAIT, is_here, read_completion, retry_after

httpx = sys.modules[DefaultAsyncHttpxClient.__base__.__module__]  # or httpx2, from openai 3 on
LARGEST_REPLY = 1 << 20  # bytes
ABOUT_RETRYING = ("retry-after", "retry-after-ms", "x-should-retry", "location")


@cache
def background_loop() -> asyncio.AbstractEventLoop:
    """Return the event loop of all requests; its threads do not keep Python from ending."""
    loop = asyncio.new_event_loop()
    loop.set_default_executor(_Daemons())
    threading.Thread(target=loop.run_forever, name="network", daemon=True).start()
    return loop


class _Daemons(ThreadPoolExecutor):
    """A thread for each name that is looked up, which may take longer than anyone wants to wait."""

    def submit(self, look_up, *arguments) -> Future:
        """Begin at once."""
        future: Future = Future()
        future.set_running_or_notify_cancel()  # cannot be cancelled from here on

        def run() -> None:
            try:
                future.set_result(look_up(*arguments))
            except Exception as error:
                future.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        return future


class GuardedClient(DefaultAsyncHttpxClient):
    """No redirects are followed, and a reply is read whole, or refused, before it is seen.

    Parameters
    ----------
    seconds : float
        For one exchange.
    count : callable
        Called before each. What it raises ends the run if it is no Exception.
    base_url : str
        Of this machine no proxy is asked, which would read what is sent over http.
    """

    def __init__(self, seconds: float, count: Callable[[], None], base_url: str):
        how = {"follow_redirects": False, "trust_env": not is_here(base_url)}
        # A compressed reply could grow a thousandfold.
        super().__init__(headers={"Accept-Encoding": "identity"}, **how)
        self.seconds, self.count = seconds, count

    async def send(self, request, **options):
        """Return the response with its body, of its headers only those that are needed."""
        self.count()
        try:
            async with asyncio.timeout(self.seconds):
                response = await super().send(request, **{**options, "stream": True})
                async with contextlib.aclosing(response):
                    body = await _read(response)
        except TimeoutError:
            raise httpx.TransportError(f"no whole reply within {self.seconds:g} s") from None
        kept = {n: response.headers[n] for n in ABOUT_RETRYING if n in response.headers}
        if response.is_success:
            try:
                read_completion(body)
            except ValueError as error:
                raise httpx.TransportError(f"this is no chat completion: {error}") from None
        elif (
            b"insufficient_quota" in body
            or FILTERED.search(body.decode(errors="replace"))
            or retry_after(kept.get("retry-after")) > LONGEST_WAIT
        ):
            kept["x-should-retry"] = "false"  # no waiting mends it, or too much
        return httpx.Response(response.status_code, headers=kept, content=body, request=request)


async def _read(response) -> bytes:
    """Return the body of a response, or raise if it is too large or cannot be read."""
    if response.headers.get("content-encoding", "identity") != "identity":
        raise httpx.TransportError("the reply is compressed, which was not asked for")
    body = bytearray()
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > LARGEST_REPLY:
            raise httpx.TransportError(
                f"a reply of more than {LARGEST_REPLY} bytes (status {response.status_code})"
            )
    return bytes(body)
