"""Names, prompts and errors from outside: shown as they stand, and never obeyed."""

import json
import logging
import shlex
import sys
import warnings

import pytest
import yaml
from checkpoints import ROOT
from matplotlib.text import Text

from lox_kit import SafetySubspace
from lox_kit.cli import main as cli
from lox_kit.cli import progress
from lox_kit.extrapolation import energy_map_data, explorer_data, spectrum_data
from lox_kit.extrapolation.card import model_card
from lox_kit.figures import DRAW
from lox_kit.figures.plotly import explorer_spec, landscape
from lox_kit.reports.table import print_table
from lox_kit.studies import AttackTable
from lox_kit.text import clean, map_texts, one_line
from lox_kit.weights import Checkpoint

ACTS = "\x1b[2J\x1b]0;x\a\b\r\0\x7f\x9b\u202e\u2066\u200f\ufeff\ud800\U000e0041"
NAME = f"$a_{{$ [/b] :smile: <b> {ACTS}"  # bad as formula, as markup, as HTML, at a terminal


def acts(text):
    """Return whether a text would do anything to a terminal."""
    return [c for c in text if c in ACTS.replace("[2J", "").replace("]0;x", "")]


# --- text ---------------------------------------------------------------------------------------


def test_what_would_act_on_a_terminal_is_written_out_and_nothing_else_changes():
    plain = "naïve مرحبا 日本 é\u0301 👩\u200d🔬 a\tb\nc \\x1b [b] $"
    assert clean(plain) == plain
    shown = clean(ACTS)
    assert shown.startswith(r"\x1b[2J\x1b]0;x\x07\x08\r\x00\x7f\x9b\u202e")
    assert shown.isascii()
    assert shown.isprintable()
    assert one_line("one\n  two\r\n\u2028three\n") == r"one two \u2028three"


# --- the terminal -------------------------------------------------------------------------------


def test_no_verb_prints_around_the_place_that_cleans():
    for file in (ROOT / "lox_kit" / "cli").glob("*.py"):
        here = file.read_text()
        assert here.count("click.echo(") == (file.name == "progress.py"), file
        assert "print(" not in here.replace("Console().print(", "").replace("_print(", ""), file


def test_lines_and_tables_show_names_as_they_stand(capsys):
    progress.say(f"{NAME}\nlox: all fine", "second")
    progress.print_shares(NAME, {NAME: {"value": 0.5, "low": 0, "high": 1, "count": 1, "n": 2}})
    progress.print_rows(NAME, [{f"m{NAME}": NAME, "[old]": None}])
    whole = NAME.replace("\ud800", "")  # pandas takes no half characters
    share = {"value": 0.5, "low": 0.1, "high": 0.9, "count": 1, "n": 2}
    rows = [
        {"attack": a, "training": "full", "arm": "LoX", "seed": 0, "measures": {"asr": share}}
        for a in (None, whole)
    ]
    source = {"pair": [whole, whole], "judge": whole, "k": 6, "alpha": 1.0}
    print_table(AttackTable(tuple(rows), source))
    with progress.stages() as on_stage:
        on_stage(NAME, 1, 2)
    out = capsys.readouterr().out
    assert not acts(out)
    assert out.splitlines()[0].endswith("lox: all fine")
    for words in ("[/b]", ":smile:", "[old]", r"\x1b[2J"):
        assert words in out


def test_without_a_terminal_progress_is_a_line_for_each_tenth(capsys, monkeypatch):
    with progress.stages() as on_stage:
        for done in range(1, 31):
            on_stage(f"training, loss {1 / done:.2f}", done, 30)
        for what, total in (("answering", 9), ("dolly, bytes", 1000), ("unknown", 0)):
            on_stage(what, total, total)  # few, or soon there
        on_stage(f"{NAME}judging", 3, 12)
        on_stage(f"{NAME}judging", 12, 12)
        on_stage(f"{NAME}judging", 1, 12)  # once more
        on_stage(f"{NAME}judging", 6, 12)
        monkeypatch.setattr(progress, "LONG", -1)
        on_stage("answering", 1, 3)
        on_stage("answering", 1, 3)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:10] == [f"training, loss {1 / n:.2f}: {n} of 30" for n in range(3, 31, 3)]
    assert [line.rpartition("judging")[2] for line in lines[10:13]] == [
        ": 3 of 12",
        ": 12 of 12",
        ": 6 of 12",
    ]
    assert lines[13:] == ["answering: 1 of 3"]
    assert not acts("".join(lines))


def test_warnings_and_logs_of_any_library_are_cleaned(lox, monkeypatch):
    def work(**_):
        text = warnings.formatwarning(f"{NAME}\nlox: all fine", UserWarning, "a.py", 1)
        handler = logging.StreamHandler(sys.stderr)
        handler.emit(logging.getLogRecordFactory()("any", 30, "a.py", 1, "%s", (NAME,), None))
        sys.stderr.write(text)

    monkeypatch.setattr(cli.lox, "main", work)
    status, _, err = lox()
    assert (status, acts(err)) == (0, [])
    logged, warned = err.splitlines()
    assert r"\x1b[2J" in logged
    assert warned.startswith("UserWarning: $a_{$")
    assert warned.endswith("lox: all fine")


# --- errors -------------------------------------------------------------------------------------


class Panic(BaseException):
    """As a library in Rust raises it."""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KeyError("base"), "lox: KeyError: 'base'. Unexpected; `lox --debug VERB ...` shows"),
        (RuntimeError("a\n  b."), "lox: RuntimeError: a b. Unexpected; `lox --debug"),
        (RecursionError(), "lox: RecursionError. Unexpected; `lox --debug"),
        (OSError(), "lox: OSError. Unexpected; `lox --debug"),
        (Panic("index out of range"), "lox: Panic: index out of range. Unexpected; `lox --debug"),
        (MemoryError(), "lox: MemoryError. There is not enough memory: close"),
        (RuntimeError("std::bad_alloc"), "lox: RuntimeError: std::bad_alloc. There is not enough"),
        (OSError("[Errno 28] No space left on device"), "Make room on the disk"),
        (RuntimeError("can't start new thread"), "There is not enough memory"),
        (ValueError(f"x: {NAME}\nlox: all fine"), r"lox: x: $a_{$ [/b] :smile: <b> \x1b[2J"),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, BaseException) else "",
)
@pytest.mark.parametrize("debug", [False, True])
def test_any_error_of_any_class_is_one_line(lox, monkeypatch, error, words, debug):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(SafetySubspace, "load", fail)
    status, out, err = lox(*["--debug"] * debug, "spectrum", "S.safetensors")
    assert (status, out, acts(err)) == (2, "", [])
    *before, last = err.splitlines()
    assert words in last
    assert before[:1] == (["Traceback (most recent call last):"] if debug else [])


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/v1\nx", "http://a\rb/", "http://a b", "\x1b://"]
)
def test_an_address_with_a_line_s_end_is_refused_before_anything_is_asked(lox, url):
    status, out, err = lox("asr", "sandbox/base", "--judge", "policy:x", "--base-url", url)
    assert (status, out) == (2, "")
    assert err == "lox: base_url holds a space, a line break or a control character: remove it.\n"


def test_a_rubric_that_is_no_text_is_named(lox, tmp_path):
    (tmp_path / "r.txt").write_bytes(b"\xff")
    status, _, err = lox("asr", "sandbox/base", "--judge", "policy:x", "--rubric", "r.txt")
    assert (status, "lox: r.txt, line 1: expected UTF-8 text" in err) == (2, True)


def test_numbers_are_printed_although_their_figure_cannot_be_written(lox, tmp_path):
    (tmp_path / "out").write_text("a file where the folder should be")
    options = ["--ranks", "0", "--limit", "2", "-o", "out"]
    status, out, err = lox("rank", "sandbox/base", "sandbox/aligned", *options)
    assert (status, len(err.splitlines())) == (2, 1)
    assert "safety rank" in out


# --- figures ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn_from(subspace):
    """Figure data with names of models, matrices and attacks in them, as they come from outside."""
    share = {"value": 0.5, "low": 0.1, "high": 0.9, "count": 1, "n": 2}
    entry = {"training": "full", "arm": "aligned", "seed": 0, "measures": {"asr": share}}
    line = {"learning_rate": 1.0, "points": [{"step": 0, "measures": {"asr": share}}]}
    ranks = [{"pair": NAME, "r": r, "measures": {"asr": share}} for r in (0, None)]
    mark = {"at": [0, 0], "distance": 0.0, "cell": [0.5] * 3, "own": None}
    cells = {"grid": [{"step": 1.0, "first": 0, "last": 1}] * 2, "values": [[0.0, 1.0]] * 2}
    words = {"axes": [NAME, NAME], "metric": NAME, "title": NAME, "limits": [0.0, 1.0]}
    example = {"prompt": NAME, "answers": [[NAME] * 2] * 2}
    way = {"name": NAME, "at": [[0, 0], [1, 1]], "explained": 0.5}
    land = {**cells, **words, "marks": {NAME: mark}, "trajectories": [way], "example": example}
    weird = dict(explorer_data(subspace, k=3, selected=next(iter(subspace)), view="all"))
    made = {
        "attack_table": {"rows": [entry | {"attack": NAME}]},
        "epochs": {"lines": [line | {"model": NAME}]},
        "rank_curve": {"rows": ranks, "safety_rank": {NAME: None}},
        "judges": {"n": 2, "shares": {f"asr ({NAME})": share}},
        "landscape_map": land,
        "landscape_3d": land,
    }
    made |= {d["figure"]: d for d in (spectrum_data(subspace), energy_map_data(subspace, k=3))}
    made = {n: {**d, "figure": n} for n, d in (made | {"explorer": weird}).items()}
    return map_texts(lambda text: text.replace("q_proj", f"q_proj{NAME}"), made)


@pytest.mark.parametrize(
    "name",
    ["attack_table", "epochs", "rank_curve", "judges", "landscape_map", "landscape_3d", "spectrum",
     "energy_map", "explorer"],
)  # fmt: skip
def test_a_name_in_a_figure_is_no_formula(drawn_from, name):
    fig = DRAW[name](drawn_from[name])
    fig.draw_without_rendering()  # a bad formula is found here
    texts = [t.get_text() for t in fig.findobj(lambda artist: isinstance(artist, Text))]
    shown = [t for t in texts if "a_{" in t]
    assert shown
    for text in shown:
        assert text.count("$") == text.count(r"\$"), text  # so matplotlib shows it as `$`
        assert not acts(text)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("overlaps/overlaps.json", "arithmetic"),
        ("sweep/sweep.json", "arithmetic"),
        ("smol/frontier.json", "chat"),
        ("landscape_flatness_arithmetic_0.json", "LoX"),
        ("controls/defences.json", "random subspace"),
    ],
)
def test_a_name_in_a_committed_figure_is_no_formula_either(file, name):
    data = json.loads((ROOT / "figures" / file).read_text())
    hostile = map_texts(lambda text: NAME if text == name else text, data)
    assert hostile != data
    with warnings.catch_warnings(action="ignore"):  # of too little room
        fig = DRAW[data["figure"]](hostile)
        fig.draw_without_rendering()
    shown = [t.get_text() for t in fig.findobj(lambda a: isinstance(a, Text))]
    shown = [text for text in shown if "a_{" in text]
    assert shown
    assert not [t for t in shown if t.count("$") != t.count(r"\$") or acts(t)]


def test_a_name_on_the_screen_is_no_html(drawn_from):
    explorer = explorer_spec(drawn_from["explorer"])
    land = landscape(drawn_from["landscape_map"]).to_dict()
    for spec in (explorer, land):
        text = json.dumps(spec, default=lambda array: array.tolist())
        assert "&lt;b&gt;" in text
        assert "[/b] :smile: <b>" not in text


# --- model cards --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["a\nb: [c", "\x1b[2J", "x: y", "- z", "yes", "1.5", "org/na-me@rev", "~/a b", 'q"q', "\u2028",
     "/a/b#c", "@a/b", "*a/b", "12:30/1", "🙂 #", "a/b\n---\nlicense: mit"],
)  # fmt: skip
def test_a_card_is_yaml_and_its_shell_lines_are_words(pair, subspace, name):
    hostile = "x; touch cmd | $(cmd) `cmd` #\n## heading"
    info = {**subspace.info, "base": hostile, "aligned": name, "include": "a|b'c", "rank": hostile}
    checkpoint = Checkpoint(pair.aligned)
    checkpoint.name = name
    card = model_card(checkpoint, SafetySubspace(info), 3, 1.0)
    _, front, rest = card.split("---\n", 2)
    read = yaml.safe_load(front)
    parents = {"base_model": ["org/na-me"]} if name == "org/na-me@rev" else {}
    assert read == parents | {"library_name": "transformers", "tags": ["lox", "safety"]}
    assert one_line(name) in rest
    assert not acts(card)
    factor, apply = (shlex.split(line) for line in rest.splitlines() if line.startswith("    lox"))
    assert factor[:4] == ["lox", "factor", one_line(hostile), one_line(name)]
    assert factor[factor.index("--include") + 1] == "a|b'c"
    assert apply[:4] == ["lox", "apply", "S.safetensors", one_line(name)]
    (row,) = (line for line in rest.splitlines() if line.startswith("| base "))
    assert row.replace(r"\|", "").count("|") == 3
