"""What comes back from an OpenAI-compatible API: a reply, a reason to try again, or the end.

The API key is removed from all of it.
"""

from __future__ import annotations

import dataclasses
import json
import os
from urllib.parse import urlsplit

AGAIN = {408, 409, 425, 429}  # and everything from 500: worth another try
REFUSED = {400, 413, 422}  # this very request is not answered, now or later


@dataclasses.dataclass(frozen=True)
class Reply:
    """What came back to one question."""

    text: str  # the model's words; the server's, if it refused the request
    finish: str = ""  # why the model stopped, as the server puts it: "stop", "length"
    tokens: int | None = None  # of question and reply; None if the server does not say
    refused: bool = False


class NoReplyError(Exception):
    """A question got no reply, which another try may bring."""

    def __init__(self, why: str, after: float | None = None):
        super().__init__(why)
        self.after = after  # seconds the server asks to wait


class EndError(Exception):
    """No more questions are to be asked."""


def read_completion(body: bytes) -> Reply:
    """Return what a chat completion says.

    Raises
    ------
    ValueError
        If the body is not JSON, or not a chat completion.
    """
    try:
        data = json.loads(body)
        choice = data["choices"][0]
        content = choice["message"]["content"]
        tokens = (data.get("usage") or {}).get("total_tokens")
        finish = choice.get("finish_reason") or ""
        if not isinstance(content, str | None):
            raise TypeError
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__} in {hide(repr(body))[:80]}") from None
    text = (content or "").encode("utf-8", "replace").decode()  # half a surrogate pair
    counted = isinstance(tokens, int) and tokens >= 0
    return Reply(hide(text), hide(str(finish)), tokens if counted else None)


def refusal(error) -> Reply:
    """Return the reply of a server that will not answer this request; raise if it may yet."""
    status, body = error.status_code, error.body if isinstance(error.body, dict) else {}
    words = hide(str(body.get("message") or error.message))  # not a whole page of HTML
    why = f"{status}: {' '.join(words.split())[:300]}"
    spent = error.code == "insufficient_quota"  # a 429 that no waiting mends
    if (status in AGAIN or status >= 500) and not spent:
        raise NoReplyError(why, retry_after(error.response.headers.get("retry-after"))) from None
    if status in REFUSED:
        return Reply(f"refused by the server, {why}", refused=True)
    raise EndError(f"the server says {why}.") from None


def retry_after(header: str | None) -> float | None:
    """Return the seconds a server asks to wait, 0 or more; None if it does not say."""
    try:
        return max(0.0, float(header))
    except (TypeError, ValueError):
        return None


def find_key() -> str:
    """Return the key from the environment, or "".

    Raises
    ------
    ValueError
        If it holds what a header cannot: raised here, before a library shows the key in an error.
    """
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ValueError("OPENAI_API_KEY holds characters that cannot be sent: set it again.")
    return key


def hide(text: str) -> str:
    """Return text without the key."""
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    return text.replace(key, "[key]") if key else text


def check_address(base_url: str) -> None:
    """Raise ValueError, without showing it, if an address holds more than an address."""
    if not base_url.isprintable() or " " in base_url:  # which urlsplit would leave out
        raise ValueError("base_url holds a space, a line break or a control character: remove it.")
    parts = urlsplit(base_url)
    if parts.username or parts.password or parts.query:
        raise ValueError(
            "base_url holds a user, a password or a query: a key belongs in the environment "
            "variable OPENAI_API_KEY, which keeps it out of every result."
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"base_url={base_url!r}: use an address such as http://localhost:8000/v1.")
