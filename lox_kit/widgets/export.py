"""A panel as a page that travels: what it shows at every setting, in one HTML file.

The page needs no kernel and loads nothing. The panel's own drawers made what is in it, each text,
curve and cell once: its script puts them together again. plotly's code is in it compressed, and its
policy lets no script run but these two, and nothing connect.
"""

from __future__ import annotations

import gzip
import json
import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import NamedTuple

from lox_kit.figures import made_now
from lox_kit.figures.plotly import Spec
from lox_kit.folders import write_whole
from lox_kit.threads import OnStage, tell

from .job import INTERVAL, Ticket
from .shell import CSS, HERE, Panel

SIZE = 13  # of the figures' text in pixels; the page's script makes it larger on a large screen
CELL = re.compile("(?=<(?:th|td|/?div)[ >])")  # where HTML is parted: what repeats is kept once


class Recording(NamedTuple):
    """What a panel shows at every setting."""

    work: Callable[[Ticket], None]  # measures what is missing
    axes: Mapping[str, Sequence]  # what can be chosen, by its name
    start: Sequence[int]  # the places on them at first
    point: Sequence[int | None]  # which of them the figure's x and y are
    views: Iterable[tuple[Spec, list[str]]]  # drawn in turn, the last axis fastest; texts escaped
    facts: Mapping[str, object]  # what was recorded, and how


class PagePanel(Panel):
    """A panel that can be written as a page.

    Attributes
    ----------
    record : callable
        Returns the `Recording` to write, with the answers `hidden` or not.
    """

    record: Callable[..., Recording]

    def export(
        self,
        file: str | Path,
        *,
        answers: bool | None = None,
        on_stage: OnStage | None = None,
        **grid,
    ) -> Path:
        """Write all that the panel shows as one HTML page, which needs no kernel and no network.

        What is not known is measured first, by the panel's job, and kept in its store: the same
        call goes on after one that was cancelled. Returns the page's path.

        Parameters
        ----------
        answers : bool, optional
            Put the answers into the page; with False they are not in the file at all. Default is
            True in the sandbox alone: what another model says stays in your store unless you
            decide to hand it on. Prompts are in the page either way; the calls that make what is on
            screen are not, as they have the prompts' targets.
        on_stage : callable, optional
            Told what is being done, how much of it is done, and how much there is.
        grid
            Of the dial: `ks` and `alphas` that can be chosen in the page, and how many `pages` of
            prompts.

        Raises
        ------
        ValueError
            If there is nothing to measure on, or a k or an alpha is none of the panel's.
        RuntimeError
            If measuring failed or was cancelled, or something else was begun in the panel.
        """
        hidden = not (self.state.model.is_sandbox if answers is None else answers)
        recording, job, ended = self.record(hidden=hidden, **grid), self.state.job, []
        job.start(lambda ticket: ended.append(recording.work(ticket)))
        try:
            while not job.wait(INTERVAL):
                tell(on_stage, *job.progress)
        except BaseException:
            job.cancel()
            raise
        if not ended:
            raise RuntimeError(job.error or "cancelled; what was measured is kept.")
        return write_page(file, self, recording, hidden, on_stage)


def write_page(
    file: str | Path, panel: Panel, recording: Recording, hidden: bool, on_stage: OnStage | None
) -> Path:
    """Write a panel's recording as a page, without its calls if answers are hidden."""
    from plotly.offline import get_plotlyjs

    pool: dict[str, int] = {}  # plain data as JSON, each once, with its place
    views, total = [], prod(map(len, recording.axes.values()))

    def put(value) -> int:
        return pool.setdefault(json.dumps(value, allow_nan=False), len(pool))

    def fields(values: dict) -> int:
        return put({name: put(value) for name, value in values.items()})

    for i, (spec, parts) in enumerate(recording.views, start=1):
        figure = [fields(trace) for trace in spec["data"]], fields(spec["layout"])
        views.append([*figure, *([put(cell) for cell in CELL.split(html)] for html in parts)])
        tell(on_stage, "settings of the page", i, total)
    try:
        code = "# left out with the answers" if hidden else panel.state.code()
    except ValueError as problem:  # of a control, or of a metric of your own
        code = f"# {problem}"
    data = {
        "title": panel.title,
        "question": panel.question,
        "axes": [{"name": n, "values": list(v)} for n, v in recording.axes.items()],
        "start": recording.start,
        "point": recording.point,
        "facts": {**recording.facts, **made_now()},
        "code": code,
        "views": views,
    }
    told = json.dumps(data, separators=(",", ":")).replace(json.dumps(str(Path.home()))[1:-1], "~")
    text = told[:-1] + f',"pool":[{",".join(pool)}]}}'
    page, plotly = (HERE / "page.html").read_text(encoding="utf-8"), get_plotlyjs()
    scripts = re.search("<script>(.*?)</script>", page, re.S)[1], plotly
    hashes = (b64encode(sha256(script.encode()).digest()).decode() for script in scripts)
    content = {
        "scripts": " ".join(f"'sha256-{h}'" for h in hashes),
        "css": CSS,
        "data": text.replace("<", "\\u003c"),  # no text ends the element that holds it
        "plotly": b64encode(gzip.compress(plotly.encode(), mtime=0)).decode(),
    }
    return write_whole(file, re.sub(r"\{\{(\w+)\}\}", lambda m: content[m[1]], page))
