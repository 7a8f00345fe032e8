"""What comes back from an OpenAI-compatible API: a reply, a reason to try again, or the end.

The API key is removed from all of it.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import os
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

LONGEST_WAIT = 60.0  # seconds a server may ask for, which the client waits in every version of it
AGAIN = {408, 409, 429}  # and everything from 500: the client tries again
BROKEN = {"error", "network_error", "insufficient_system_resource"}  # ends of half a reply
STOPPED = re.compile(r"content.?filter|safety|sensitive|prohibited|refusal", re.IGNORECASE)
REFUSED = {400, 403, 413, 422, 451}  # this very request may not be answered, now or later
FILTERED = re.compile(  # what filters of content say, in their code or their words
    r"content.?filter|content.{0,20}polic|usage polic|content exists risk|responsible.?ai|"
    r"(?:input|prompt|request|content|message)\b.{0,40}\bflagged|flagged (?:as|by|for)|moderation|"
    r"inappropriate content|sensitive (?:content|words?|information)|data.?inspection|"
    r"safety (?:system|filter|polic)",
    re.IGNORECASE,
)
ABOUT_FIELDS = re.compile(
    r"\b(?:unknown|unrecogni[sz]ed|unsupported|unexpected|extra)\b", re.IGNORECASE
)


@dataclasses.dataclass(frozen=True)
class Reply:
    """What came back to one question."""

    text: str  # the model's words; the server's, if it refused the request
    finish: str = ""  # why the model stopped, as the server puts it: "stop", "length"
    tokens: int | None = None  # of question and reply; None if the server does not say
    fate: str = "said"  # or "refused", as this question; to `ask` also "doubtful", "lost", "end"

    @property
    def refused(self) -> bool:
        """Whether the text is not the model's."""
        return self.fate != "said"


class ServerError(ConnectionError):
    """A server was not asked to the end: the budget is spent, or it does not answer."""


class SpentError(BaseException):
    """The budget is spent; no Exception, which the client would try again."""


def read_completion(body: bytes) -> Reply:
    """Return what a chat completion says; what the model thought before is no part of it.

    Of a model that was cut off while it thought it is an opened thought. An error in place of a
    reply that speaks of content is a refusal of this question.

    Raises
    ------
    ValueError
        If the body is not JSON, or not a chat completion, or one that broke off at a fault.
    """
    try:
        data = json.loads(body)
        if not data.get("choices") and FILTERED.search(str(data.get("error"))):
            return Reply(f"refused by the server: {hide(str(data['error']))[:300]}", fate="refused")
        choice = data["choices"][0]
        finish = hide(str(choice.get("finish_reason") or ""))
        stopped = STOPPED.match(finish)  # by a filter; it may have no message
        message = choice.get("message", {}) if stopped else choice["message"]
        content = message.get("content") or message.get("refusal")
        tokens = (data.get("usage") or {}).get("total_tokens")
        if isinstance(content, list):
            content = "".join(part["text"] for part in content if part["type"] == "text")
        if not isinstance(content, str | None) or finish in BROKEN:
            raise TypeError
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__} in {hide(repr(body[:400]))[:80]}") from None
    text = hide((content or "").encode("utf-8", "replace").decode())  # half a surrogate pair
    counted = tokens if isinstance(tokens, int) and tokens >= 0 else None
    if finish == "length" and not text.strip():
        text = "<think>"
    if stopped and not text.strip():
        return Reply(f"refused by the server: {finish}", finish, counted, "refused")
    return Reply(text, finish, counted)


def read_error(error, sent: Iterable[str], tries: int) -> Reply:
    """Return what a server's error makes of a question, after all tries.

    A content filter refuses one question; any other refusal is "doubtful", since it may be of them
    all. If it names one of the fields `sent`, it says how to leave that out. The question is "lost"
    if another time may do, and it is the "end" if no other question would fare better.
    """
    status, body = error.status_code, error.body
    if isinstance(body, dict):
        body = body.get("message") or body.get("detail")
    words = hide(str(body or error.message))  # a page of HTML is cut
    why = f"{status}: {' '.join(words.split())[:300]}"
    after, there = map(error.response.headers.get, ("retry-after", "location"))
    if (seconds := retry_after(after)) > LONGEST_WAIT:
        return Reply(f"the server asks to wait for {seconds:.0f} s ({why}).", fate="end")
    named = [name for name in sent if re.search(rf"\b{name}\b", f"{error.param} {words}")]
    filtered = FILTERED.search(f"{error.code} {words}") and not (
        named or ABOUT_FIELDS.search(words)
    )
    if (status in AGAIN or status >= 500) and not filtered and error.code != "insufficient_quota":
        return Reply(f"{why}, after {tries} tries", fate="lost")
    if there and status < 400:
        why += f", that is at {hide(there)[:200]}, which is not followed: give the right address"
    if status == 404 and "/v1/" not in str(error.request.url):
        why += f", of {error.request.url}: most addresses end in /v1"
    if not filtered and (status not in REFUSED or status == 403):
        return Reply(f"the server says {why}.", fate="end")
    if named:
        other = "max_tokens=512" if named[0] == "max_completion_tokens" else f"{named[0]}=none"
        why += f" Leave it out: --judge-option {other}, or --served-option"
    return Reply(f"refused by the server, {why}", fate="refused" if filtered else "doubtful")


def retry_after(header: str | None) -> float:
    """Return the seconds a server asks to wait; 0 if it does not say."""
    try:
        return max(0.0, float(header))
    except (TypeError, ValueError):
        return 0.0


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
    try:
        parts = urlsplit(base_url)
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"base_url is no address ({error}).") from None
    if parts.username or parts.password or parts.query:
        raise ValueError(
            "base_url holds a user, a password or a query: a key belongs in the environment "
            "variable OPENAI_API_KEY, which keeps it out of every result."
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"base_url={base_url!r}: use an address such as http://localhost:8000/v1.")


def is_here(base_url: str) -> bool:
    """Whether an address is of this machine."""
    host = urlsplit(base_url).hostname
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost"
