"""What every panel has around it: title, Save figure, Code, Reset, class use, and word of its job.

A panel is a state and, in this shell, a body of widgets: `figure` and `html` show what the state
has, and `sliders`, `control` and `button` change it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from html import escape
from inspect import signature
from itertools import count
from pathlib import Path

import anywidget
import ipywidgets

from lox_kit.figures import holds, save_figure
from lox_kit.figures.plotly import Spec

from .drawing import Drawing
from .job import Job, Latest
from .setting import STEP, PanelState

HERE = Path(__file__).parent
CSS = (HERE / "panel.css").read_text(encoding="utf-8")
FOLDER = "figures"  # below the folder the notebook runs in
REST = 0.4  # seconds that another panel's slider must rest before this one is drawn
SIZES = {False: 12, True: 18}  # of text in pixels, at a desk and in class


class Frame(anywidget.AnyWidget):
    """An invisible line as wide as its panel; see frame.js for what it does there."""

    _esm = (HERE / "frame.js").read_text(encoding="utf-8")  # of a path, anywidget keeps all


class Panel(ipywidgets.VBox):
    """One panel: toolbar, body, and a line that says what happened.

    Parameters
    ----------
    title, question : str
        What it is, and what it answers.
    state : PanelState
    """

    def __init__(self, title: str, question: str, state: PanelState):
        self.state, self.title, self.question = state, title, question
        self._views: list[Callable[[], None]] = []
        self._sliders: dict[str, ipywidgets.Widget] = {}
        self._later = Latest(state.lock, REST, rest=True)
        state.ends.callback(self._take_away)
        state.ends.callback(self._later.cancel)
        self.message = ipywidgets.HTML().add_class("lox-message")
        self.code = ipywidgets.Textarea(rows=12).add_class("lox-code")
        self.code.layout.display = "none"
        head = ipywidgets.HTML(
            f"<style>{CSS}</style><div class='lox-title' role='heading' aria-level='3'>"
            f"{escape(title)}</div><div class='lox-question'>{escape(question)}</div>"
        ).add_class("lox-head")
        top = ipywidgets.HBox([head, self._toolbar()]).add_class("lox-top")
        self._above, self._below = [top, self.message, self.code], [Frame()]
        super().__init__([*self._above, *self._below])
        self.add_class("lox-panel")

    def figure(self, name: str, spec: Callable[[], Spec]) -> ipywidgets.Widget:
        """Return a plotly figure that shows what a function describes."""
        drawing = Drawing(spec(), f"lox-{name}")
        self._views.append(lambda: drawing.show(spec()))
        return drawing.widget

    def html(self, name: str, text: Callable[[], str]) -> ipywidgets.Widget:
        """Return HTML that shows what a function says, and takes no room while that is nothing."""
        shown = ipywidgets.HTML().add_class(f"lox-{name}")
        self._views.append(lambda: setattr(shown, "value", text()))
        return shown

    def runs(self, *parts: ipywidgets.Widget) -> ipywidgets.Widget:
        """Return the line of what starts the job, with how it stands beside it."""
        return controls(*parts, job_bar(self.state.job, self.guard))

    def sliders(self, *names: str) -> list[ipywidgets.Widget]:
        """Return sliders of the setting, "k" or "alpha", the same in every panel that has them."""
        for name in names:
            if name == "k":
                slider = ipywidgets.IntSlider(max=self.state.setting.most_k)
            else:
                slider = ipywidgets.FloatSlider(max=self.state.setting.most_alpha, step=STEP)
            slider.description = name
            self._sliders[name] = slider.add_class(f"lox-{name}")
            self.state.link(name, slider)
        return list(self._sliders.values())

    def control(
        self, trait: str, widget: ipywidgets.Widget, name: str = "", **ranges: Callable[[], object]
    ) -> ipywidgets.Widget:
        """Let a widget and a trait of the state follow each other; return the widget.

        What it sets is held back while it follows: a slider whose range changes moves by itself.
        One change is made after the other: a page's callbacks come in several threads.

        Parameters
        ----------
        name : str
            Of its class in the page; default is the trait's.
        ranges
            Traits of the widget that depend on the state, such as `max`, and what they are then.
        """
        state, following = self.state, []

        def follow() -> None:
            with state.lock:
                following.append(True)
                try:
                    for part, now in ranges.items():
                        setattr(widget, part, now())
                    widget.value = getattr(state, trait)
                finally:
                    following.pop()

        def set_trait() -> None:
            with state.lock:
                if not following:
                    setattr(state, trait, widget.value)

        follow()
        widget.observe(self.guard(set_trait), "value")
        of_it = [n for n in state.trait_names() if n not in ("data", "ends")]
        state.observe(self.guard(follow), of_it if ranges else trait)
        return widget.add_class(f"lox-{name or trait}")

    def fill(self, *body: ipywidgets.Widget) -> Panel:
        """Put the body in, drawn whenever the state's data change. Return the panel."""
        self.children = [*self._above, *body, *self._below]
        self.state.observe(self.guard(self._draw_in_turn), "data")
        self.state.follow(self._dress, "classroom")
        self._dress()
        return self

    def draw(self) -> None:
        """Show what the state has now, and its code if that is open."""
        with self.state.lock:  # the job draws, too
            for show in self._views:
                show()
            self.refresh()

    def _draw_in_turn(self) -> None:
        """Draw at once; what has a job waits while another panel's slider moves, until it rests.

        So the panel whose slider moves is drawn first, and this one once. Its own slider is the
        last to follow another panel's.
        """
        sliders, setting = self._sliders.items(), self.state.setting
        if not self.state.job or all(s.value == getattr(setting, name) for name, s in sliders):
            self.draw()
        else:
            self._later.give(self.guard(self.draw))

    @property
    def size(self) -> int:
        """Height of the figures' text in pixels."""
        return SIZES[self.state.setting.classroom]

    def guard(self, function: Callable[[], object]) -> Callable[..., None]:
        """Return a callback that shows in the panel what the function returns or raises.

        What is shown stays until something else is to be said or a button is pressed: a figure that
        refits itself does not take an error away.
        """

        def run(*event) -> None:
            try:
                if text := function():
                    self.message.value = f"<div role='status'>{escape(str(text))}</div>"
                elif event and isinstance(event[0], ipywidgets.Button):
                    self.message.value = ""
            except Exception as problem:  # an uncaught one would be seen nowhere
                logging.getLogger(__name__).exception("in a panel")
                text = escape(f"{type(problem).__name__}: {problem}")
                self.message.value = f"<div role='alert' class='lox-error'>{text}</div>"

        return run

    def save(self) -> str:
        """Write the matplotlib twin of what is on screen; say where, and what is not measured."""
        data = self.state.figure_data()
        files = save_figure(data, free_name(data, self.state.figure_name), FOLDER)
        kinds = ", ".join(f.suffix for f in files)
        return f"Saved {files[0].with_suffix('').resolve()} ({kinds}){self.state.gaps}"

    def show_code(self) -> None:
        """Open or close the calls that reproduce what is on screen."""
        if self.code.layout.display == "none":
            self.code.value = self.state.code()
            self.code.rows = self.code.value.count("\n") + 1
            self.code.layout.display = ""
        else:
            self.code.layout.display = "none"

    def refresh(self) -> None:
        """Bring the code, if it is open, to what is on screen now."""
        if self.code.layout.display != "none":
            self.code.value = self.state.code()

    def close(self) -> None:
        """Stop the panel's job and take the panel away, with all that was made for it."""
        self.state.close()

    def _take_away(self) -> None:
        """Close every widget of the panel."""
        for widget in widgets_in(self):
            ipywidgets.Widget.close(widget)

    def _toolbar(self) -> ipywidgets.Widget:
        """Return the buttons every panel has."""
        classroom = ipywidgets.ToggleButton(
            description="Class",
            icon="graduation-cap",
            tooltip="Larger type, answers hidden",
        ).add_class("lox-classroom")
        self.state.link("classroom", classroom)
        buttons = [
            self.button("Save figure", "save", self.save, "PDF, SVG and PNG for a paper, and data"),
            self.button("Code", "code", self.show_code, "The calls that make what is on screen"),
            self.button("Reset", "undo", self.state.reset, "Back to where it started"),
        ]
        return ipywidgets.HBox([*buttons, classroom]).add_class("lox-toolbar")

    def button(
        self, text: str, icon: str, function: Callable[[], object], tooltip: str = ""
    ) -> ipywidgets.Button:
        """Return a button that calls this, guarded."""
        made = ipywidgets.Button(description=text, icon=icon, tooltip=tooltip)
        made.on_click(self.guard(function))
        return made.add_class("lox-" + text.lower().replace(" ", "-"))

    def _dress(self, change=None) -> None:
        """Put on the type of class use, or take it off."""
        (self.add_class if self.state.setting.classroom else self.remove_class)("lox-class")
        self.draw()


def free_name(data: dict, name: str) -> str:
    """Return the name of a figure, with a number if files of that name hold other data."""
    for i in count(1):
        numbered = name if i == 1 else f"{name}-{i}"
        file = Path(FOLDER, f"{numbered}.json")
        if not file.exists() or holds(file, data):
            return numbered


def opens(state: type[PanelState]) -> Callable[[Callable], Callable]:
    """Return a decorator for what opens a panel: its help shows what the panel's state takes."""

    def signed(function: Callable) -> Callable:
        function.__signature__ = signature(state).replace(return_annotation="Panel")
        return function

    return signed


def controls(*parts: ipywidgets.Widget) -> ipywidgets.Widget:
    """Return parts side by side, as many as the width takes."""
    return ipywidgets.HBox(parts).add_class("lox-controls")


def widgets_in(widget: ipywidgets.Widget) -> Iterator[ipywidgets.Widget]:
    """Yield a widget and all that it holds: children, layouts, styles."""
    for value in widget.trait_values(sync=True).values():
        for part in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(part, ipywidgets.Widget):
                yield from widgets_in(part)
    yield widget


def job_bar(job: Job, guard: Callable) -> ipywidgets.Widget:
    """Return a line that says how a job stands, with Pause and Cancel while it runs."""
    bar = ipywidgets.FloatProgress(0.0, max=1.0).add_class("lox-progress")
    text = ipywidgets.HTML().add_class("lox-job")
    pause = ipywidgets.Button().add_class("lox-pause")
    cancel = ipywidgets.Button(description="Cancel", icon="stop").add_class("lox-cancel")
    pause.on_click(guard(lambda: job.resume() if job.status == "paused" else job.pause()))
    cancel.on_click(guard(job.cancel))

    def show(change=None) -> None:
        with job.lock:
            _, done, total = job.progress
            active = job.status in ("running", "paused", "cancelling")
            bar.value = done / total if total else 0.0
            text.value = job_text(job)
            for button in (pause, cancel):
                button.disabled = not active or job.status == "cancelling"
            paused = job.status == "paused"
            pause.description, pause.icon = ("Resume", "play") if paused else ("Pause", "pause")
            bar.layout.display = None if active else "none"

    job.observe(show, ["status", "progress", "error"])
    show()
    return ipywidgets.HBox([text, bar, pause, cancel]).add_class("lox-jobbar")


def job_text(job: Job) -> str:
    """Return how a job stands, as HTML in which the job's own words are escaped."""
    if job.status == "failed":
        return f"<span role='alert' class='lox-error'>{escape(job.error)}</span>"
    what, done, total = job.progress
    words = [job.status]
    if job.status in ("running", "paused") and total:
        words.append(escape(what))
        words.append(f"{done} of {total}")
        if job.seconds_left is not None and job.seconds_left >= 1:
            words.append(f"{job.seconds_left:.0f} s left")
    return f"<span role='status'>{' · '.join(w for w in words if w)}</span>"
