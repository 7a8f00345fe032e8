"""Every kind of data file gives its rows with their places, and says what is wrong with them."""

import gzip
import json

import pytest

from lox_kit.models.files import collect, read_rows
from lox_kit.models.records import RowError, text_field

RECORDS = [{"a": "one"}, {"a": "two, with\u2028a line separator"}, {"a": "naïve"}]
USUAL = "expected text and numbers of a usual kind"
ENDINGS = "ends in .jsonl, .json, .csv, .tsv, .parquet"


def as_jsonl(rows):
    """Return rows as JSON lines, characters beyond ASCII as they are."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a file and returns its path."""

    def write(name, data):
        data = data.encode() if isinstance(data, str) else data
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return tmp_path / name

    return write


def values(file):
    """Return the rows of a file without their places."""
    return [row for _, row in read_rows(file)]


def places(file):
    """Return where the rows of a file are, without the file's name."""
    return [place.removeprefix(f"{file}, ") for place, _ in read_rows(file)]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "A.JSONL", "a.v2.jsonl"])
def test_jsonl_gives_its_lines_and_passes_over_blank_ones(write, name):
    file = write(name, "\n" + as_jsonl(RECORDS[:2]) + "  \n" + as_jsonl(RECORDS[2:]))
    assert values(file) == RECORDS
    assert places(file) == ["line 2", "line 3", "line 5"]


@pytest.mark.parametrize("name", ["a.json", "a.json.gz"])
def test_json_gives_the_rows_of_its_list(write, name):
    file = write(name, json.dumps(RECORDS))
    assert values(file) == RECORDS
    assert places(file) == ["row 0 (from 0)", "row 1 (from 0)", "row 2 (from 0)"]


def test_a_character_in_two_halves_is_whole(write):
    assert values(write("a.jsonl", '"\\ud83d\\ude00 \\\\ud83d"\n')) == ["😀 \\ud83d"]


@pytest.mark.parametrize("name", ["a.csv", "A.CSV", "a.csv.gz", "a.tsv", "a.tsv.gz"])
def test_csv_and_tsv_give_records_by_their_heading_and_the_line_where_each_begins(write, name):
    text = '\n,a,b\n0,"x\ny",1\n\n1,z,\n'  # the unnamed column of a pandas index
    file = write(name, text.replace(",", "\t") if "tsv" in name else text)
    assert values(file) == [{"": "0", "a": "x\ny", "b": "1"}, {"": "1", "a": "z", "b": ""}]
    assert places(file) == ["line 3", "line 6"]


@pytest.mark.parametrize("name", ["a.txt", "a", "a.txt.gz"])
def test_plain_text_is_a_row_a_line_and_lines_end_at_line_feeds_alone(write, name):
    file = write(name, "\n one\u2028still one\x0b, one \r\n\t\n[two\n")
    rows = list(read_rows(file, plain=True))
    assert [row for _, row in rows] == ["one\u2028still one\x0b, one", "[two"]
    assert [place.removeprefix(f"{file}, ") for place, _ in rows] == ["line 2", "line 4"]


def test_parquet_gives_its_rows(tmp_path):
    import pandas as pd

    pd.DataFrame(RECORDS).to_parquet(tmp_path / "a.parquet")
    assert values(tmp_path / "a.parquet") == RECORDS
    assert places(tmp_path / "a.parquet")[2] == "row 2 (from 0)"


AS_SAVED = {
    "a.jsonl": '{"a": "naïve"}\n',
    "a.json": '[{"a": "naïve"}]',
    "a.csv": "a\nnaïve\n",
    "a.tsv": "a\nnaïve",
}


@pytest.mark.parametrize("name", AS_SAVED)
@pytest.mark.parametrize(
    "encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"]
)
def test_text_is_read_as_it_was_saved_where_a_mark_or_its_nuls_tell_how(write, name, encoding):
    assert values(write(name, AS_SAVED[name].encode(encoding))) == [{"a": "naïve"}]


@pytest.mark.parametrize("name", AS_SAVED)
@pytest.mark.parametrize("encoding", ["cp1252", "cp1250", "cp1251"])
def test_other_encodings_are_refused_with_the_line_and_how_it_may_be_meant(write, name, encoding):
    text = AS_SAVED[name].replace("naïve", "é" if encoding != "cp1251" else "ж")
    file = write(name, text.encode(encoding))
    line = rf"{name}, line {2 if name in ('a.csv', 'a.tsv') else 1}"
    letter = "é" if encoding != "cp1251" else "æ"
    with pytest.raises(ValueError, match=rf"{line}: expected UTF-8.*Windows-1252.*{letter}.*iconv"):
        collect(read_rows(file), dict)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json"])
def test_what_is_no_text_at_all_is_named(write, name):
    for data in (gzip.compress(b"x", mtime=0), b"a\n\0", "日本".encode("utf-16-le") + b"a\0"):
        with pytest.raises(ValueError, match=rf"{name}: not text.*save it as UTF-8"):
            values(write(name, data))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "a,b, a\n1,2,3\n", "a.csv, line 1, the heading: expected each column once, 'a'"),
        ("a.tsv", "\nb\tb\n1\t2\n", "a.tsv, line 2, the heading: expected each column once, 'b'"),
        ("a.jsonl", '{"a": 1}\n{"a": 1, "a": 2}\n', "line 2: expected each column once, 'a'"),
        ("a.json", '[{"b": {"a": 1, "a": 2}}]', "a.json: expected each column once, 'a'"),
    ],
)
def test_two_columns_of_one_name_are_refused(write, name, text, message):
    with pytest.raises(ValueError, match=message):
        collect(read_rows(write(name, text)), dict)


def test_two_columns_of_one_name_in_parquet_are_refused(tmp_path):
    import pyarrow.parquet

    table = pyarrow.table([pyarrow.array(["x"]), pyarrow.array(["y"])], names=["a", "a"])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a.parquet: not a parquet file that can be read .*\(a\)"):
        values(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    "text",
    ['a,b\n1,2\n"x,y\nz,1\n', 'a,b\n1,2\n"x,y\n"z",1\n', 'a,b\n1,2\n"x"y,1\n'],
    ids=["to the end", "to the next", "in the middle"],
)
def test_a_quote_that_is_not_closed_is_named_at_the_line_where_it_opens(write, text):
    with pytest.raises(ValueError, match=r"a.csv, line 3: not CSV .*doubles those inside"):
        collect(read_rows(write("a.csv", text)), dict, "skip")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", '{"a": 1}\n{"a": \n', r"line 2: expected one JSON value on a line: .* column"),
        ("a.jsonl", b'{"a": 1}\n"\xff"\n', "line 2: expected UTF-8 text"),
        ("a.csv", b"a\n1\n\xff\n", "line 3: expected UTF-8 text"),
        ("a.jsonl", '{"a": 1}\n{"a": "x\\ud83d"}\n', "line 2: .*half a character: .*ud83d"),
        ("a.jsonl", '{"a": 1}\n{"\\uDE00": 1}\n', "line 2: .*half a character"),
        ("a.jsonl", '{"a": 1}\n' + "[" * 10**5 + "\n", f"line 2: {USUAL}"),
        ("a.jsonl", '{"a": 1}\n{"a": ' + "9" * 6000 + "}", f"line 2: {USUAL}"),
        ("a.csv", "a,b\n1,2\n1\n", "line 3: expected 2 fields as in the heading, it has 1"),
        ("a.csv", "a,b\n1,2\n1,2,3,4\n", "line 3: expected 2 fields as in the heading, it has 4"),
    ],
)
def test_a_bad_line_is_named_and_can_be_left_out(write, name, data, message):
    file = write(name, data)
    with pytest.raises(ValueError, match=rf"{name}, {message}.*on_bad_row='skip'"):
        collect(read_rows(file), dict, "raise")
    kept, bad = collect(read_rows(file), dict, "skip")
    assert len(kept) == len(bad) == 1


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.json", '[{"a": 1},\n{"a" 2}]', r"a.json, line 2: not JSON"),
        ("a.json", '{"a": 1}\n{"a": 2}\n', r"line 2: not JSON .*Extra data.*is .jsonl: rename it"),
        ("a.json", '{"a": 1}', "expected a JSON list of rows, it is a dict"),
        ("a.json", "[" * 10**5, f"a.json: {USUAL}"),
        ("a.json", "[" + "9" * 6000 + "]", f"a.json: {USUAL}"),
        ("a.json", '["\\ud83d"]', "a.json, row 0 .*half a character"),
        ("a.csv", b"a,\xff\n1,2\n", "a.csv, line 1, the heading: expected UTF-8 text"),
        ("a.csv", "a\n" + "x" * 200_000, "line 2: not CSV .*field larger than"),
        ("a.csv", "x" * 200_000, "line 1: not CSV .*field larger than"),
        ("a.parquet", "no", "not a parquet file"),
        ("a.txt", "one\n", ENDINGS),
        ("a.gz", "one\n", ENDINGS),
        ("a.parquet.gz", "one\n", ENDINGS),
    ],
)
def test_a_file_that_cannot_be_told_into_rows_is_refused(write, name, data, message):
    with pytest.raises(ValueError, match=message):
        collect(read_rows(write(name, data)), dict, "skip")


def test_a_missing_or_cut_off_file_is_named(write, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.json: no such data file"):
        list(read_rows(tmp_path / "nowhere.json"))
    file = write("a.jsonl.gz", as_jsonl(RECORDS * 50))
    whole = file.read_bytes()
    overwritten = whole[:12] + b"\xff" * 48 + whole[60:]
    for data in (whole[:-20], overwritten, as_jsonl(RECORDS).encode()):
        file.write_bytes(data)
        with pytest.raises(ValueError, match=r"a.jsonl.gz: damaged or cut off.*get it again"):
            list(read_rows(file))


def test_what_is_left_out_is_listed_and_nothing_left_is_an_error():
    rows = [("f, line 1", {"a": "x"}), ("f, line 2", {"b": "y"}), ("f, line 3", {"a": ""})]

    def parse(row):
        return text_field(row, "a")

    assert collect(rows, parse, "skip") == (
        ["x"],
        [
            "f, line 2: expected a field 'a', it has b.",
            "f, line 3: expected text in 'a', it is empty.",
        ],
    )
    with pytest.raises(ValueError, match="none of 2 rows is usable; the first: f, line 2"):
        collect(rows[1:], parse, "skip")
    with pytest.raises(ValueError, match="on_bad_row='drop': use 'raise' or 'skip'"):
        collect(rows, parse, "drop")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("x", "expected a record with a field 'a', it is a str"),
        ({}, "expected a field 'a', it has none"),
        ({"a": 3}, "expected text in 'a', it holds a int"),
        ({"a": None}, "expected text in 'a', it holds a NoneType"),
        ({"a": " \n"}, "expected text in 'a', it is empty"),
        ({"a": "x" * 131_073}, "expected text of at most 131072 characters in 'a': 131073"),
    ],
)
def test_a_field_that_is_no_text_says_so(row, message):
    with pytest.raises(RowError, match=message):
        text_field(row, "a")
