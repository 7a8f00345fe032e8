"""Exported pages, opened from disk in a browser that may ask for nothing else."""

import json

import pytest
from pages import Page
from panel_parts import copy_of, plane_to_base
from playwright.sync_api import expect

from lox_kit import widgets
from lox_kit.figures.plotly import alpha_spec, viewer_spec
from lox_kit.landscape import Asr, Grid
from lox_kit.models import Prompt, sandbox_prompts
from lox_kit.widgets.export import SIZE
from lox_kit.widgets.panels.dial import state as dial_state

FEW = 4
HOSTILE = (
    "</script></div></td><script>window.ran = 1</script><img src='http://127.0.0.1:9/x' "
    "onerror='window.ran = 2'><svg onload=window.ran=3> ' \" ` ${window.ran=4} \u2028 &lt; {{data}}"
)
LOX = "th.lox-lox small"
DRAWN = "() => document.querySelector('#figure .main-svg') !== null"


class Opened:
    """A page opened from its file, with what it asked for and what it complained of."""

    def __init__(self, browser, file, **look):
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **look})
        self.page, self.asked, self.errors = self.context.new_page(), [], []
        self.page.route("**/*", self._only_the_file)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._listen)
        self.page.goto(file.as_uri())
        self.page.wait_for_function(DRAWN, timeout=60_000)

    def _only_the_file(self, route):
        self.asked.append(route.request.url)
        route.continue_() if len(self.asked) == 1 else route.abort()

    def _listen(self, message):
        if message.type == "error":
            self.errors.append(message.text)

    def find(self, name):
        """Return a slider, or the figure."""
        slider = self.page.get_by_role("slider", name=name, exact=True)
        return self.page.locator("#figure") if name == "figure" else slider

    def press(self, name, key, times=1):
        """Press a key on a slider or on the figure."""
        self.find(name).focus()
        for _ in range(times):
            self.page.keyboard.press(key)

    def drawn(self, expression):
        """Return what an expression says of the figure, called `gd` in it."""
        text = f"() => {{ const gd = document.getElementById('figure'); return {expression}; }}"
        return self.page.evaluate(text)

    def is_drawn_as(self, spec):
        """Assert that every trace has the values that the kernel's figure has."""
        names = ["type", "x", "y", "z", "customdata", "error_y"]
        found = self.drawn(f"gd.data.map((t) => {json.dumps(names)}.map((n) => t[n] ?? null))")
        for trace, values in zip(spec["data"], found, strict=True):
            wanted = json.loads(json.dumps([trace.get(n) for n in names]))
            assert values == wanted


@pytest.fixture
def open_page(browser):
    """Return a function that opens a file; all that it opened is closed."""
    opened = []

    def make(file, **look):
        opened.append(Opened(browser, file, **look))
        return opened[-1]

    yield make
    for one in opened:
        assert len(one.asked) == 1, one.asked
        assert one.errors == []
        one.context.close()


@pytest.fixture(scope="module")
def dial(factored, aligned, base, tmp_path_factory):
    """The dial, and the page that it was exported as."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dial_state, "FEW", FEW)
        panel = widgets.dial(factored, copy_of(aligned), base=base)
    file = tmp_path_factory.mktemp("pages") / "dial.html"
    panel.export(file, ks=(1, 6), alphas=(0.0, 1.0, 2.0, 4.0), pages=2)
    yield panel, file
    panel.close()


@pytest.fixture(scope="module")
def plane():
    return plane_to_base()


@pytest.fixture(scope="module")
def viewer(plane, aligned, tmp_path_factory):
    """The landscape viewer, and the page that it was exported as."""
    metric = Asr(sandbox_prompts("forbidden", "dev", FEW), "rule", max_new_tokens=16)
    grid = Grid.spanning((-1, 1), (-1, 1), cells=5)
    panel = widgets.landscape(plane, copy_of(aligned), metric=metric, grid=grid)
    panel.state.finer = 0
    file = tmp_path_factory.mktemp("pages") / "landscape.html"
    yield panel, panel.export(file)
    panel.close()


@pytest.mark.quick
def test_keys_on_the_sliders_show_what_the_kernel_showed_there(dial, open_page):
    panel, file = dial
    opened, state = open_page(file), panel.state
    page = opened.page
    expect(page.locator(LOX)).to_have_text("k = 6, α = 1")
    for label, key, times, k, alpha in (
        ("alpha", "ArrowRight", 1, 6, 2.0),
        ("k", "ArrowLeft", 1, 1, 2.0),
        ("alpha", "End", 1, 1, 4.0),
        ("figure", "ArrowLeft", 3, 1, 0.0),
        ("k", "ArrowRight", 2, 6, 0.0),  # it ends there
        ("alpha", "End", 1, 6, 4.0),
    ):
        opened.press(label, key, times)
        expect(page.locator(LOX)).to_have_text(f"k = {k}, α = {alpha:g}")
        data = state.at(state.dial_place._replace(k=k, alpha=alpha), 0)
        most = state.setting.most_alpha
        opened.is_drawn_as(alpha_spec(data["curve"], alpha, most=most, size=SIZE))
        assert opened.drawn("gd.layout.shapes[0].x0") == alpha
        assert opened.drawn("gd.layout.xaxis.title.text") == f"alpha, at k = {k}"
        lox = [c["name"] for c in data["table"]["columns"]].index("LoX")
        said = [row["answers"][lox]["text"].strip() for row in data["table"]["rows"]]
        assert page.locator("td.lox-lox .lox-answer").all_inner_texts() == said
        asr = data["table"]["columns"][lox]["shares"]["asr"]["value"]
        expect(page.locator("td.lox-lox b").first).to_have_text(f"{asr:.0%}")
    assert opened.find("alpha").get_attribute("aria-valuetext") == "4"


def test_other_prompts_and_hidden_answers(dial, open_page):
    panel, file = dial
    page = open_page(file).page
    heads = page.locator(".lox-table tbody:last-child th .lox-text")
    for number in (0, 1, 0):
        assert heads.all_inner_texts() == [p.text for p, _ in panel.state.shown(number)]
        page.get_by_role("button", name="Other prompts").press("Enter")
    page.get_by_label("hide answers").press("Space")
    assert not any(a.is_visible() for a in page.locator(".lox-answer").all())
    assert page.locator(".lox-chip").first.is_visible()


def test_a_page_without_answers_offers_none(dial, open_page, tmp_path):
    panel, _ = dial
    grid = {"ks": (6,), "alphas": (1.0,), "pages": 1}
    page = open_page(panel.export(tmp_path / "dial.html", answers=False, **grid)).page
    assert page.locator(".lox-chip").count() > 5
    assert page.locator(".lox-answer").count() == 0
    assert page.get_by_label("hide answers").count() == 0
    page.get_by_text("how it was made").click()
    expect(page.locator("footer")).to_contain_text("left out of this page")


def test_a_page_says_how_it_was_made(dial, open_page):
    panel, file = dial
    page = open_page(file).page
    page.get_by_text("how it was made").press("Enter")
    foot = page.locator("footer")
    for words in (panel.state.keys["base"][:16], f"forbidden: {FEW}", "judge: rule 1", "torch"):
        expect(foot).to_contain_text(words)
    assert foot.locator("pre").inner_text().strip() == panel.state.code().strip()


def test_keys_and_the_pointer_move_over_the_map(viewer, open_page):
    panel, file = viewer
    opened, grid = open_page(file), panel.state.grid
    page = opened.page
    here = page.locator("#parts > div").first

    def shows(i, j):
        data = panel.state.at((i, j))
        a, b = grid.at((i, j))
        expect(here).to_contain_text(f"At ({a:.2f}, {b:.2f})")
        line = f"{data['here']['value'] * FEW:.0f} of {FEW} prompts"
        expect(here).to_contain_text(line)
        expect(here.locator(".lox-answer")).to_have_text(data["here"]["answer"].strip())
        return data

    opened.is_drawn_as(viewer_spec(shows(2, 2), SIZE))
    opened.press("figure", "ArrowRight")
    opened.is_drawn_as(viewer_spec(shows(3, 2), SIZE))
    page.keyboard.press("ArrowDown")
    opened.is_drawn_as(viewer_spec(shows(3, 1), SIZE))
    assert opened.find("b").get_attribute("aria-valuetext") == "-0.5"
    opened.press("a", "Home")
    data = shows(0, 1)
    opened.is_drawn_as(viewer_spec(data, SIZE))
    names = [row["name"] for row in data["cliffs"]]
    assert page.locator(".lox-table tbody th").all_inner_texts() == names
    box = page.locator("#figure .nsewdrag[data-subplot=xy]").bounding_box()
    centre = box["x"] + 0.9 * box["width"], box["y"] + 0.1 * box["height"]
    page.mouse.move(*centre)
    shows(4, 4)
    assert opened.drawn("gd.data[5].x[0]") == -1  # the one that is chosen
    page.mouse.click(*centre)
    opened.is_drawn_as(viewer_spec(shows(4, 4), SIZE))
    assert opened.find("a").get_attribute("aria-valuetext") == "1"


def test_what_a_model_says_is_shown_and_not_run(plane, aligned, open_page, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "lox_kit.landscape.metrics.answer", lambda model, texts, *_, **__: [HOSTILE] * len(texts)
    )
    metric = Asr([Prompt(HOSTILE, target="take root")], "rule", max_new_tokens=4)
    grid = Grid.spanning((-1, 1), (-1, 1), cells=3)
    panel = widgets.landscape(plane, copy_of(aligned), metric=metric, grid=grid)
    panel.state.finer = 0
    opened = open_page(panel.export(tmp_path / "landscape.html"))
    panel.close()
    page = opened.page
    said = page.locator("#parts .lox-answer").first
    assert said.evaluate("(div) => div.textContent") == HOSTILE
    box = page.locator("#figure .nsewdrag[data-subplot=xy]").bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    expect(page.locator(".hoverlayer")).to_contain_text("</script>")
    assert page.evaluate("() => window.ran") is None
    # and if something were not escaped, the page's policy would keep it from running and asking
    page.evaluate("(html) => { document.querySelector('#parts').innerHTML = html; }", HOSTILE)
    page.evaluate("() => fetch('http://127.0.0.1:9/').catch(() => null)")
    assert page.evaluate("() => window.ran") is None
    assert len(opened.asked) == 1
    assert any("Content Security Policy" in error for error in opened.errors)
    opened.errors.clear()


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (1920, 1080)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_fits_and_can_be_read(dial, viewer, open_page, width, height, scheme):
    for (_, file), least in ((dial, 190), (viewer, 400)):
        look = {"viewport": {"width": width, "height": height}, "color_scheme": scheme}
        opened = open_page(file, **look)
        assert opened.page.evaluate("document.documentElement.scrollHeight") <= height
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
        figure = opened.page.locator("#figure").bounding_box()
        assert figure["height"] >= least
        assert opened.drawn("gd._fullLayout.height") == pytest.approx(figure["height"], abs=2)
        size = opened.drawn("parseFloat(getComputedStyle(document.querySelector('td')).fontSize)")
        assert size >= (19 if width == 1920 else 13)
        colours = "[getComputedStyle(document.body).backgroundColor, gd.layout.font.color]"
        dark = scheme == "dark"
        assert opened.drawn(colours) == (
            ["rgb(21, 23, 27)", "#ececec"] if dark else ["rgb(255, 255, 255)", "#1a1a1a"]
        )


def test_the_landscape_s_page_has_few_megabytes(viewer):
    _, file = viewer
    assert file.stat().st_size < 4e6
    assert Page(file).data["axes"][0]["name"] == "a"
