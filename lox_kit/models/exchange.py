"""The `openai` client, each of its exchanges held to one deadline and one limit of bytes.

Both count whatever the status is, and from the first byte of the headers on. Imported where it is
needed, since the client takes a second to import.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable

from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from .completions import LONGEST_WAIT, read_completion, retry_after

httpx = sys.modules[DefaultAsyncHttpxClient.__base__.__module__]  # or httpx2, from openai 3 on
LARGEST_REPLY = 1 << 20  # bytes
ABOUT_RETRYING = ("retry-after", "retry-after-ms", "x-should-retry", "location")


def open_client(base_url: str, key: str, tries: int, timeout: float, count: Callable[[], None]):
    """Return a client that tries a request again where that may help, and calls `count` each time.

    Its own retries: on 408, 409, 429, 5xx, lost connections and what `_Guarded` raises. `count` may
    raise what is no Exception to end the run.
    """
    guarded = _Guarded(timeout, count)
    return AsyncOpenAI(
        api_key=key,
        base_url=base_url,
        max_retries=tries - 1,
        timeout=None,  # which would be of each piece
        http_client=guarded,
    )


class _Guarded(DefaultAsyncHttpxClient):
    """The HTTP client under it: no redirects, and replies read whole before anyone sees them."""

    def __init__(self, seconds: float, count: Callable[[], None]):
        # A compressed reply could grow a thousandfold.
        super().__init__(follow_redirects=False, headers={"Accept-Encoding": "identity"})
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
        elif b"insufficient_quota" in body or retry_after(kept.get("retry-after")) > LONGEST_WAIT:
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
