"""The course: checks tell right from wrong answers, and lessons run as students get them."""

import importlib.util
import re

import nbformat
import pytest
from checkpoints import ROOT
from course_mistakes import MISTAKES
from test_notebooks import errors, run

from lox_kit import course

COURSE = ROOT / "notebooks" / "course"
SOLVED, LESSONS = sorted(COURSE.glob("solutions/*.ipynb")), sorted(COURSE.glob("*.ipynb"))
SECONDS = 60  # of the kernel's processor time, for all cells of a lesson

of_solved = pytest.mark.parametrize("file", SOLVED, ids=lambda f: f.stem)
of_all = pytest.mark.parametrize(
    "file", LESSONS + SOLVED, ids=lambda f: f"{f.parent.name}-{f.stem}"
)
of_exercises = pytest.mark.parametrize("name", course.exercises())


@pytest.fixture(autouse=True)
def _no_exercise_done(tmp_path, monkeypatch):
    """Give every test a student's folder in which nothing has been checked."""
    monkeypatch.setenv("LOX_KIT_STORE", str(tmp_path / "student"))
    monkeypatch.delenv(course.TEACHER, raising=False)


def cells(file):
    """Return a notebook's cells by their nbgrader name, or by number if they have none."""
    found = nbformat.read(file, as_version=4).cells
    return {c.metadata.get("nbgrader", {}).get("grade_id", i): c for i, c in enumerate(found)}


def solved(lesson):
    """Return what a lesson's solutions define, its imports made and nothing else run."""
    (file,) = (f for f in SOLVED if f.name.startswith(lesson))
    names = {}
    for name, cell in cells(file).items():
        imports = cell.source.startswith(("import ", "from ")) and "%pip" not in cell.source
        if cell.cell_type == "code" and (imports or str(name).startswith("answer-")):
            exec(cell.source, names)
    return names


# --- the checks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("lesson", "12345")
def test_every_solution_passes_its_check(lesson, capsys):
    names = solved(lesson)
    (file,) = (f for f in SOLVED if f.name.startswith(lesson))
    checks = [c.source for name, c in cells(file).items() if str(name).startswith("check-")]
    for source in checks:
        assert eval(source, names) == 1, capsys.readouterr().out
    done = course.status().set_index("exercise")["state"]
    assert [n for n in done.index if done[n] == "passed"] == [
        n for n in course.exercises() if n.startswith(lesson)
    ]
    assert len(checks) == 3


@pytest.mark.parametrize(
    ("name", "lacking"), [(n, lacking) for n in MISTAKES for lacking in MISTAKES[n]]
)
def test_a_typical_mistake_is_told_in_words_of_its_own(name, lacking, capsys):
    assert course.check(name, MISTAKES[name][lacking]) == 0
    said = capsys.readouterr().out
    exercise = course.exercises()[name]
    (expected,) = (p["says"] for p in exercise["property"] if p["name"] == lacking)
    assert f'missing: "{lacking}"' in said
    assert expected.strip().replace("\n", " ") in said
    assert exercise["where"] in said
    assert not course.passed(name)


def test_every_exercise_has_two_mistakes_at_least():
    assert set(MISTAKES) == set(course.exercises())
    assert min(map(len, MISTAKES.values())) >= 2


def raising(*given):
    raise NotImplementedError


@of_exercises
@pytest.mark.parametrize("answer", [None, ..., lambda *given: None, raising])
def test_what_is_not_written_yet_is_no_failure(name, answer, capsys):
    assert course.check(name, answer) == 0
    assert f"{course.exercises()[name]['title']}: not yet" in capsys.readouterr().out
    assert set(course.status()["state"]) == {"not yet"}


def test_an_answer_that_stops_is_told_with_its_own_error(capsys):
    assert course.check("3.1", lambda dW, k: dW @ dW) == 0
    said = capsys.readouterr().out
    assert "failed" in said
    assert "stopped with RuntimeError: mat1 and mat2" in said
    assert "of lesson 3" in said


def test_what_passed_and_then_breaks_is_no_longer_passed():
    right = solved("1")["energy"]
    assert course.check("1.1", right) == 1
    assert course.passed("1.1")
    course.check("1.1", lambda S, k: 0.5)
    assert not course.passed("1.1")


def test_status_has_the_last_check_and_goes_to_csv(tmp_path):
    course.check("1.1", lambda S, k: 0.5)
    course.check("4.2", lambda verdicts: (0.0, 1.0))
    course.check("4.2", solved("4")["bounds"])
    course.status().to_csv(tmp_path / "status.csv", index=False)
    lines = (tmp_path / "status.csv").read_text().splitlines()
    assert lines[0] == "exercise,title,state"
    assert "4.2,a rate with verdicts that cannot be read,passed" in lines
    assert "1.1,energy of the top k directions,failed" in lines
    assert len(lines) == 1 + len(course.exercises())


def test_status_is_the_student_s_own_where_a_class_has_a_store(tmp_path, monkeypatch):
    course.check("1.1", solved("1")["energy"])
    monkeypatch.setenv("LOX_KIT_CLASS", str(tmp_path / "student"))
    monkeypatch.setenv("LOX_KIT_STORE", str(tmp_path / "another"))
    assert set(course.status()["state"]) == {"not yet"}


@of_exercises
def test_a_solution_is_shown_to_the_teacher_alone(name, monkeypatch, capsys):
    with pytest.raises(PermissionError, match="LOX_KIT_TEACHER=1"):
        course.solution(name)
    monkeypatch.setenv(course.TEACHER, "1")
    course.solution(name)
    said = capsys.readouterr().out
    assert said.startswith("def ")
    assert "SOLUTION" not in said
    assert re.search(r"^    return ", said, re.M)


@of_exercises
def test_neither_a_hint_nor_a_message_holds_a_line_of_the_solution(name, monkeypatch, capsys):
    monkeypatch.setenv(course.TEACHER, "1")
    course.solution(name)
    body = capsys.readouterr().out.split('"""')[2]
    lines = {line.strip() for line in body.splitlines() if "=" in line or "return" in line}
    course.hint(name)
    exercise = course.exercises()[name]
    said = [capsys.readouterr().out, exercise["where"], *(p["says"] for p in exercise["property"])]
    assert lines
    assert not [line for line in lines if any(line in text for text in said)]


def test_an_exercise_that_there_is_not_is_named():
    for call in (course.hint, course.solution, lambda name: course.check(name, None)):
        with pytest.raises(ValueError, match=r"exercise '9\.9': there are 1\.1, "):
            call("9.9")


# --- the notebooks ------------------------------------------------------------------------------


@of_solved
def test_a_lesson_is_its_solved_notebook_without_the_solutions(file):
    spec = importlib.util.spec_from_file_location("make", COURSE / "make.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    student = (COURSE / file.name).read_text("utf-8")
    assert student == make.lesson(file), "run python notebooks/course/make.py"
    assert "SOLUTION" not in student
    assert student.count(make.STUB) == 3
    assert student.count(make.TEXT) == 1


@of_all
def test_a_lesson_asks_first_and_has_short_cells_without_outputs(file):
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    first = notebook.cells[0].source
    assert first.startswith(f"# Lesson {file.name[0]} · ")
    assert "**Question.**" in first
    assert "laptop CPU" in first
    assert "2506.15606" in notebook.cells[-1].source
    code = [c for c in notebook.cells if c.cell_type == "code"]
    assert all((c.outputs, c.execution_count) == ([], None) for c in code)
    assert max(len(c.source.splitlines()) for c in code) <= 10
    assert any("widgets." in c.source for c in code)


@of_all
def test_nbgrader_finds_an_answer_and_a_check_of_every_exercise(file):
    found = cells(file)
    mine = [n for n in course.exercises() if n.startswith(file.name[0])]
    ids = [f"{kind}-{n.replace('.', '-')}" for n in mine for kind in ("answer", "check")]
    assert [n for n in found if isinstance(n, str)] == [*ids, f"open-{file.name[0]}"]
    for name, cell in found.items():
        if isinstance(name, str):
            told = cell.metadata.nbgrader
            assert (told.schema_version, told.task) == (3, False)
            assert told.solution == (not name.startswith("check-"))
            assert told.grade == (not name.startswith("answer-")) == ("points" in told)
            assert told.locked == name.startswith("check-")
        if str(name).startswith("check-"):  # a plain call, whose value nbgrader takes as points
            exercise = name.removeprefix("check-").replace("-", ".")
            assert re.fullmatch(rf'course\.check\("{exercise}", \w+\)', cell.source)


@of_exercises
def test_where_to_look_is_a_section_of_the_lesson(name):
    (section,) = re.findall(r'section "([^"]+)" of lesson (\d)', course.exercises()[name]["where"])
    (file,) = (f for f in LESSONS if f.name.startswith(section[1]))
    assert section[1] == name[0]
    assert f"## {section[0]}\n" in "\n".join(c.source for c in cells(file).values())


@pytest.mark.parametrize("name", ["controls", "overlaps", "knowing"])
def test_what_is_recorded_says_so_and_how_it_is_made(name, capsys):
    rows = course.recorded(name)["rows"]
    assert len(rows) >= 5
    said = capsys.readouterr().out
    assert re.fullmatch(
        r"Recorded, not computed here: (lox demo|python notebooks/course/make).*\n", said
    )
    shown = "".join(f.read_text("utf-8") for f in LESSONS)
    assert f'course.recorded(\\"{name}\\")' in shown


def test_the_course_is_delivered_with_its_solutions():
    places = course.delivered()
    files = [f.relative_to(ROOT / "notebooks").as_posix() for f in LESSONS + SOLVED]
    assert {*files, "course/TEACHING.md", "00_start.ipynb"} <= places.keys()
    assert not [place for place in places if place.endswith(".py")]
    assert all(file.is_file() for file in places.values())


@pytest.mark.slow
@of_all
def test_a_lesson_runs_and_its_checks_say_what_they_should(file, tmp_path, monkeypatch):
    used = "import time; print(time.process_time())"
    done = run(file, tmp_path, monkeypatch, used)
    assert errors(done) == []
    checked = [c for c in done.cells if c.source.startswith("course.check(")]
    said = [o.text for c in checked for o in c.outputs if o.output_type == "stream"]
    state = "passed" if file in SOLVED else "not yet"
    assert [text.splitlines()[0].rpartition(": ")[2] for text in said] == [state] * 3
    points = [o.data["text/plain"] for c in checked for o in c.outputs if "data" in o]
    assert points == ["1" if file in SOLVED else "0"] * 3
    seconds = float(done.cells[-1].outputs[0].text)
    print(f"{seconds:.0f} s of processor time")
    assert seconds <= SECONDS
