"""Many questions to one chat model behind an OpenAI-compatible API: patient, and within a budget.

The `openai` client carries the requests. Its own retries are turned off: ours count against the
budget, can be interrupted while they wait, and honour Retry-After however long it is, up to
`LONGEST_WAIT`. The key comes from the environment variable OPENAI_API_KEY and is sent to whatever
`base_url` names; it is removed from every message and reply.
"""

from __future__ import annotations

import dataclasses
import os
import random
import threading
import time
from collections.abc import Generator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import cached_property
from itertools import islice
from urllib.parse import urlsplit

from .completions import (
    EndError,
    NoReplyError,
    Reply,
    check_address,
    find_key,
    hide,
    read_completion,
    refusal,
)
from .protocol import JudgingError

OPENAI = "https://api.openai.com/v1"
LONGEST_WAIT = 300.0  # seconds; a server that asks for more ends the run
LONGEST_PAUSE = 30.0  # seconds between tries when the server does not say
LARGEST_REPLY = 4 << 20  # bytes


@dataclasses.dataclass(frozen=True)
class Limits:
    """How hard, how long and how much a server is asked."""

    concurrency: int = 8  # requests under way at a time
    tries: int = 6  # of one request
    timeout: float = 60.0  # seconds for one whole reply
    pause: float = 0.5  # seconds before the second try; doubled before each further one
    calls: int | None = None  # requests in all, tries included; None: as many as it takes
    tokens: int | None = None  # as the server counts them; requests under way may exceed it

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            if value is not None and not value > 0:
                raise ValueError(f"{name}={value}: use a number above 0.")


class ChatModel:
    """A chat model behind an OpenAI-compatible API.

    Parameters
    ----------
    model : str
        As the server calls it.
    base_url : str, optional
        Default: the environment's OPENAI_BASE_URL, or OpenAI itself. The key comes from the
        environment variable OPENAI_API_KEY alone; a local server needs none.
    seed, temperature : number or None
        Sent with every request; None leaves them out, for servers that do not take them.
    reply_tokens : int
        Longest reply.
    limits : Limits, optional
        Requests at a time, tries, time and budget.

    Raises
    ------
    ValueError
        If `base_url` is not an http address, or holds a user, a password or a query.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        seed: int | None = 42,
        temperature: float | None = 0.0,
        reply_tokens: int = 512,
        limits: Limits | None = None,
    ):
        self.model, self.seed, self.temperature = model, seed, temperature
        self.base_url = base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI
        self.reply_tokens, self.limits = reply_tokens, limits or Limits()
        self.calls = self.tokens = 0  # spent so far
        self._uncounted = False  # whether a reply came without its number of tokens
        self._lock = threading.Lock()
        check_address(self.base_url)

    def __str__(self) -> str:
        """All that could change a reply."""
        return (
            f"{self.model} at {self.base_url}, seed {self.seed}, temperature {self.temperature}, "
            f"up to {self.reply_tokens} tokens"
        )

    def check(self) -> None:
        """Raise ValueError if the client is not installed or OpenAI's own server lacks its key."""
        _ = self._client

    @cached_property
    def _client(self):
        """The openai client."""
        try:
            from openai import OpenAI
        except ImportError:
            raise ValueError(
                "judging over the network needs the openai client: pip install 'lox-kit[judge]'."
            ) from None
        key = find_key()
        if not key and urlsplit(self.base_url).hostname == urlsplit(OPENAI).hostname:
            raise ValueError(
                f"{self.base_url} needs a key: set the environment variable OPENAI_API_KEY, or "
                "name another server with base_url or OPENAI_BASE_URL (a local one needs no key)."
            )
        return OpenAI(
            api_key=key or "none",
            base_url=self.base_url,
            timeout=self.limits.timeout,
            max_retries=0,
        )

    def ask(self, questions: Mapping[str, str]) -> Generator[dict[str, Reply]]:
        """Yield replies by key as soon as they are there, asking several questions at a time.

        Faults that may pass (429, 5xx, timeouts, lost connections, replies that are not chat
        completions) are tried again. A question that runs out of tries does not hold up the others,
        but once as many requests in a row have failed as are sent at a time, no more are sent.

        Raises
        ------
        JudgingError
            After the last reply, if a question has none.
        """
        self.check()
        course, stop = _Course(self.limits.concurrency), threading.Event()
        todo, under_way = iter(questions.items()), {}
        pool = ThreadPoolExecutor(self.limits.concurrency, thread_name_prefix="judge")
        try:
            while True:
                room = 0 if course.end else self.limits.concurrency - len(under_way)
                for key, text in islice(todo, room):
                    under_way[pool.submit(self._ask_one, text, stop)] = key
                if not under_way:
                    break
                done = wait(under_way, return_when=FIRST_COMPLETED).done
                outcomes = {under_way.pop(future): course.take(future) for future in done}
                if course.end:
                    stop.set()  # no more tries; requests under way are still answered
                if replies := {key: reply for key, reply in outcomes.items() if reply}:
                    yield replies
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
        if why := course.stopped:
            raise JudgingError(why)

    def _ask_one(self, text: str, stop: threading.Event) -> Reply:
        """Return the reply to one question, trying again as often as the limits allow."""
        fault = None
        for n in range(self.limits.tries):
            if fault and stop.wait(self._pause(n, fault)):
                raise fault
            self._count_call()
            try:
                return self._call(text)
            except NoReplyError as again:
                fault = again
        raise NoReplyError(f"{fault}, after {self.limits.tries} tries")

    def _pause(self, n: int, fault: NoReplyError) -> float:
        """Return how many seconds to wait before try `n`, counted from 0."""
        if fault.after is None:  # random: what failed together is not tried again together
            longest = min(LONGEST_PAUSE, self.limits.pause * 2 ** (n - 1))
            return longest * random.uniform(0.5, 1)
        if fault.after > LONGEST_WAIT:
            raise EndError(f"the server asks to wait for {fault.after:.0f} s ({fault}).")
        return fault.after

    def _count_call(self) -> None:
        """Count one request, if the budget has room for it."""
        with self._lock:
            calls, tokens = self.limits.calls, self.limits.tokens
            if calls is not None and self.calls >= calls:
                raise EndError(f"the budget of {calls} calls is spent.")
            if tokens is not None and self._uncounted:
                raise EndError(
                    f"{self.base_url} does not say how many tokens a reply cost, so a budget of "
                    "tokens cannot be kept: limit the calls instead."
                )
            if tokens is not None and self.tokens >= tokens:
                raise EndError(f"the budget of {tokens} tokens is spent.")
            self.calls += 1

    def _call(self, text: str) -> Reply:
        """Return the reply to one request."""
        import openai

        settings = {"seed": self.seed, "temperature": self.temperature}
        try:
            body = self._body(
                model=self.model,
                messages=[{"role": "user", "content": text}],
                max_completion_tokens=self.reply_tokens,
                **{name: value for name, value in settings.items() if value is not None},
            )
        except openai.APITimeoutError:
            raise NoReplyError(f"no reply within {self.limits.timeout:g} s") from None
        except openai.APIConnectionError as error:
            cause = hide(str(error.__cause__ or error))
            raise NoReplyError(f"no connection to {self.base_url}: {cause}") from None
        except openai.APIStatusError as error:
            return refusal(error)
        except Exception as error:
            if not type(error).__module__.startswith("http"):
                raise
            # What breaks while it is read comes from the client's HTTP library, httpx or httpx2.
            raise NoReplyError(f"the reply broke off: {hide(repr(error))}") from None
        try:
            reply = read_completion(body)
        except ValueError as error:
            raise NoReplyError(f"a reply that is not a chat completion: {error}") from None
        with self._lock:
            self._uncounted |= reply.tokens is None
            self.tokens += reply.tokens or 0
        return reply

    def _body(self, **request) -> bytes:
        """Send one request and return what comes back, whole and in time.

        Read piece by piece: the client's timeout is for each piece, and a server that sends blanks
        to keep the line open would hold it for ever.
        """
        latest, body = time.monotonic() + self.limits.timeout, b""
        create = self._client.chat.completions.with_streaming_response.create
        with create(**request) as response:
            for piece in response.iter_bytes():
                body += piece
                if time.monotonic() > latest:
                    raise NoReplyError(f"no whole reply within {self.limits.timeout:g} s")
                if len(body) > LARGEST_REPLY:
                    raise NoReplyError(f"a reply of more than {LARGEST_REPLY} bytes")
        return body


class _Course:
    """What came of the requests so far, and whether to go on."""

    def __init__(self, patience: int):
        self.patience = patience  # this many failures in a row are no accident
        self.in_a_row, self.n_failed = 0, 0
        self.end = self.last = ""

    def take(self, future: Future) -> Reply | None:
        """Return the reply a request got, if it did."""
        try:
            reply = future.result()
            failure = reply.text if reply.refused else ""
        except EndError as end:
            self.end = self.end or str(end)
            return None
        except NoReplyError as error:
            reply, failure = None, str(error)
            self.n_failed += 1
        self.in_a_row = self.in_a_row + 1 if failure else 0
        self.last = failure or self.last
        if self.in_a_row >= self.patience and not self.end:
            self.end = f"{self.in_a_row} requests in a row failed (the last: {self.last})."
        return reply

    @property
    def stopped(self) -> str:
        """Why some questions have no reply; empty if all have one."""
        if self.end or not self.n_failed:
            return self.end
        return f"{self.n_failed} requests got no reply (the last: {self.last})."
