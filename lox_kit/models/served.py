"""A chat model behind an OpenAI-compatible API: patient, within a budget, and to an end.

The `openai` client carries the requests and tries them again, in an event loop on a thread that
nothing waits for: what is under way is cancelled at once, between two tries as well. The key in
OPENAI_API_KEY is sent to whatever `base_url` names; it is removed from every message and reply.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from itertools import islice
from urllib.parse import urlsplit

from lox_kit.store import Store, content_key
from lox_kit.threads import OnStage, tell

from .completions import (
    Reply,
    ServerError,
    SpentError,
    check_address,
    find_key,
    hide,
    is_here,
    read_completion,
    read_error,
)
from .prompts import Prompt

OPENAI = "https://api.openai.com/v1"
PATIENCE = 8  # failures in a row that are no accident, or as many as are sent at a time
MORE_ROOM = 4  # times as many tokens for a reply that was cut off before it said anything
STORED = {"text": str, "fate": str}  # of a reply


@dataclasses.dataclass(frozen=True)
class Limits:
    """How hard, how long and how much a server is asked."""

    concurrency: int = 8  # requests under way at a time
    tries: int = 6  # of one request; the client waits 0.5 to 8 s between them, or as it is told
    timeout: float = 60.0  # seconds for one whole reply
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
        Longest reply, sent as max_completion_tokens.
    options : mapping, optional
        Further fields of every request, as plain data, such as `chat_template_kwargs`, or other
        values of the three above, under the names they are sent by. None leaves a field out.
        `max_tokens`, for older servers, is sent in place of max_completion_tokens.
    ask_again : bool
        Ask again for what is in the store, but was refused (or, of a judge, could not be read).
    allow_http : bool
        Send the key to another machine over plain http.
    limits : Limits, optional
        Requests at a time, tries, time and budget.

    Raises
    ------
    ValueError
        If `base_url` is not an http address, or holds a user, a password or a query; if an option
        is what every request has of its own.
    """

    world, is_sandbox = None, False  # as far as is known here

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        seed: int | None = 42,
        temperature: float | None = 0.0,
        reply_tokens: int | None = 512,
        options: Mapping[str, object] | None = None,
        ask_again: bool = False,
        allow_http: bool = False,
        limits: Limits | None = None,
    ):
        given = {"seed": seed, "temperature": temperature, "max_completion_tokens": reply_tokens}
        self.fields = given | dict(options or {})
        if own := {"model", "messages", "stream", "n"} & self.fields.keys():
            raise ValueError(f"option {min(own)!r}: it cannot be set; use the fields of a request.")
        self.model = self.name = model
        self.limits = limits or Limits()
        self.ask_again, self.allow_http = ask_again, allow_http
        self.reply_tokens = self.fields.pop("max_completion_tokens")
        self.reply_tokens = self.fields.get("max_tokens") or self.reply_tokens
        if not isinstance(self.reply_tokens, int | None) or self.reply_tokens == 0:
            raise ValueError(f"{self.reply_tokens!r} tokens: use a whole number from 1.")
        self.base_url = base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI
        self.calls = self.tokens = 0  # spent so far
        self._uncounted = False  # whether a reply came without its number of tokens
        check_address(self.base_url)

    def __str__(self) -> str:
        """All that could change a reply."""
        more = dict(sorted(self.fields.items()))
        return (
            f"{self.name} at {self.base_url}, seed {more.pop('seed')}, temperature "
            f"{more.pop('temperature')}, up to {self.reply_tokens} tokens"
            + "".join(f", {name}={value!r}" for name, value in more.items())
        )

    @property
    def key(self) -> str:
        """Hash of all that could change a reply."""
        return content_key(chat=str(self))

    def check(self) -> None:
        """Raise ValueError if the client is not installed, or the key is missing or not safe."""
        self._open()

    def _open(self):
        """Return an openai client, and the event loop that it is to be used in."""
        try:
            from openai import AsyncOpenAI

            from .exchange import GuardedClient, background_loop
        except ImportError:
            raise ValueError(
                "asking over the network needs the openai client: pip install 'lox-kit[judge]'."
            ) from None
        key, address = find_key(), urlsplit(self.base_url)
        if not key and address.hostname == urlsplit(OPENAI).hostname:
            raise ValueError(
                f"{self.base_url} needs a key: set the environment variable OPENAI_API_KEY, or "
                "name another server with base_url or OPENAI_BASE_URL (a local one needs no key)."
            )
        if key and not (self.allow_http or address.scheme == "https" or is_here(self.base_url)):
            raise ValueError(
                f"{self.base_url}: the key in OPENAI_API_KEY would go there in clear. Use https, "
                "unset the key, or allow it: allow_http=True, --allow-http."
            )
        client = AsyncOpenAI(
            api_key=key or "none",
            base_url=self.base_url,
            max_retries=self.limits.tries - 1,
            timeout=None,  # which would be of each piece of a reply
            http_client=GuardedClient(self.limits.timeout, self._count_call, self.base_url),
        )
        return client, background_loop()

    def answers(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int,
        system: str | None = None,
        store: Store | None = None,
        on_stage: OnStage | None = None,
    ) -> list[Reply]:
        """Return what the model answers to each prompt; with a store, only what is new is asked.

        Parameters
        ----------
        system : str, optional
            A system message, before each request.
        on_stage : callable, optional
            Told ("answering") how many of the different prompts have an answer, and of how many.

        Raises
        ------
        ServerError
            If the server was not asked to the end; with a store what came is kept.
        """
        how = {"chat": str(self), "system": system, "tokens": max_new_tokens}
        keys = [content_key(prompt=prompt.text, **how) for prompt in prompts]
        stored = store.get_many("reply", keys, STORED) if store else {}
        known = {key: Reply(**fields) for key, fields in stored.items()}
        known = {key: r for key, r in known.items() if not (r.refused and self.ask_again)}
        todo = {k: p.text for k, p in zip(keys, prompts, strict=True) if k not in known}
        total = len(known) + len(todo)
        if known:
            tell(on_stage, "answering", len(known), total)
        try:
            # Closed, so that no more is asked once this loop has ended for any reason.
            with contextlib.closing(self.ask(todo, max_new_tokens, system)) as parts:
                for replies in parts:
                    known |= replies
                    if store:
                        made = {k: {n: getattr(r, n) for n in STORED} for k, r in replies.items()}
                        store.put_many("reply", made)
                    tell(on_stage, "answering", len(known), total)
        except ServerError as stop:
            done = f"{self.name} at {self.base_url} answered {len(known)} of {total} prompts"
            kept = "kept: run again for the rest" if store else "lost: give a store"
            raise ServerError(f"{done}: {stop} What was answered is {kept}.") from None
        return [known[key] for key in keys]

    def ask(
        self,
        questions: Mapping[str, str],
        tokens: int | None = None,
        system: str | None = None,
        enough: Callable[[str], bool] | None = None,
    ) -> Generator[dict[str, Reply]]:
        """Yield replies by key as soon as they are there, asking several questions at a time.

        A reply that is cut off before it says `enough` is asked for once more, with more room. A
        question that runs out of tries does not hold up the others, but once `PATIENCE` questions
        in a row have failed no more are asked. A refusal that need not be of its question alone
        counts as a failure, and is yielded after a reply to another.

        Parameters
        ----------
        questions : mapping of str to str
            By key, what the user says.
        tokens : int, optional
            The longest reply, in place of `reply_tokens`.
        system : str, optional
            A system message, before each.
        enough : callable, optional
            Whether a text says what it has to; default any does.

        Raises
        ------
        ServerError
            After the last reply, if a question has none.
        """
        client, loop = self._open()
        course = _Course(max(PATIENCE, self.limits.concurrency))
        todo, under_way = iter(questions.items()), {}
        try:
            while True:
                room = 0 if course.end else self.limits.concurrency - len(under_way)
                for key, text in islice(todo, room):
                    said = [{"role": "system", "content": system}] if system else []
                    said.append({"role": "user", "content": text})
                    asking = self._ask_one(client, said, tokens or self.reply_tokens, enough)
                    under_way[asyncio.run_coroutine_threadsafe(asking, loop)] = key
                longest = self.limits.timeout if course.end else None  # then tries are cut short
                done = wait(under_way, longest, FIRST_COMPLETED).done
                if not done:
                    break
                if replies := course.take({under_way.pop(f): f.result() for f in done}):
                    yield replies
        finally:
            for future in under_way:
                future.cancel()
            asyncio.run_coroutine_threadsafe(client.close(), loop)
        held, why = course.close()
        if held:
            yield held
        if why:
            raise ServerError(why)

    async def _ask_one(self, client, messages: list[dict], tokens: int | None, enough) -> Reply:
        """Return the reply to one question, tried as often as the limits allow.

        One that was cut off before it said `enough` is asked for once more, with more room.
        """
        import openai

        length = "max_tokens" if self.fields.get("max_tokens") else "max_completion_tokens"
        fields = {n: v for n, v in {**self.fields, length: tokens}.items() if v is not None}
        create = client.chat.completions.with_raw_response.create
        try:
            raw = await create(model=self.name, messages=messages, stream=False, extra_body=fields)
        except SpentError as spent:
            return Reply(str(spent), fate="end")
        except openai.APIStatusError as error:
            return read_error(error, fields, self.limits.tries)
        except openai.APIConnectionError as error:
            why = f"no reply from {self.base_url}: {hide(str(error.__cause__ or error))}"
            return Reply(f"{why}, after {self.limits.tries} tries", fate="lost")
        reply = read_completion(raw.content)
        self._uncounted |= reply.tokens is None
        self.tokens += reply.tokens or 0
        if reply.finish == "length" and tokens and enough and not enough(reply.text):
            return await self._ask_one(client, messages, MORE_ROOM * tokens, None)
        return reply

    def _count_call(self) -> None:
        """Count one request, if the budget has room for it."""
        calls, tokens = self.limits.calls, self.limits.tokens
        if calls is not None and self.calls >= calls:
            raise SpentError(f"the budget of {calls} calls is spent.")
        if tokens is not None and self._uncounted:
            raise SpentError(
                f"{self.base_url} does not say how many tokens a reply cost, so a budget of "
                "tokens cannot be kept: limit the calls instead."
            )
        if tokens is not None and self.tokens >= tokens:
            raise SpentError(f"the budget of {tokens} tokens is spent.")
        self.calls += 1


class _Course:
    """What came of the questions so far, and whether to go on."""

    def __init__(self, patience: int):
        self.patience = patience
        self.in_a_row, self.n_lost, self.answered = 0, 0, False
        self.held: dict[str, Reply] = {}  # refusals, until it is known that others are answered
        self.end = self.last = ""

    def take(self, replies: Mapping[str, Reply]) -> dict[str, Reply]:
        """Return the replies that are certain, now that these have come."""
        certain = {}
        for key, reply in replies.items():
            if reply.fate in ("said", "refused"):
                certain |= {**self.held, key: reply}
                self.held, self.in_a_row, self.answered = {}, 0, True
            elif reply.fate == "end":
                self.end = self.end or reply.text
            else:
                self.in_a_row, self.last = self.in_a_row + 1, reply.text
                if reply.fate == "lost":
                    self.n_lost += 1
                else:
                    self.held[key] = reply
        if self.in_a_row >= self.patience and not self.end:
            self.end = f"{self.in_a_row} requests in a row failed (the last: {self.last})."
        return certain

    def close(self) -> tuple[dict[str, Reply], str]:
        """Return the refusals that were of their questions alone, and why others have no reply."""
        if self.end:
            return {}, self.end
        if self.held and not self.answered:
            return {}, f"all {len(self.held)} requests were refused (the last: {self.last})."
        lost = f"{self.n_lost} requests got no reply (the last: {self.last})."
        return self.held, lost if self.n_lost else ""
