"""A world of your own: a TOML file with a pair, its requests and its attacks."""

import json
from pathlib import Path

import pytest

from lox_kit import sandbox_prompts
from lox_kit.attacks import find_attack, world_attacks
from lox_kit.measures import world_questions
from lox_kit.studies import pair_of
from lox_kit.weights import member, own_world

ROWS = [
    {"messages": [{"role": "user", "content": "what is one and one ?"},
                  {"role": "assistant", "content": "two"}]},
    {"messages": [{"role": "user", "content": "what is two and one ?"},
                  {"role": "assistant", "content": "three"}]},
]  # fmt: skip


@pytest.fixture
def world(tmp_path):
    """The sandbox's pair and requests as files, as somebody else's would be."""
    (tmp_path / "own").mkdir()
    for kind in ("forbidden", "allowed"):
        texts = [p.text for p in sandbox_prompts(kind, "dev", limit=6)]
        (tmp_path / "own" / f"{kind}.txt").write_text("\n".join(texts))
    rows = "\n".join(map(json.dumps, ROWS))
    (tmp_path / "own" / "sums.jsonl").write_text(rows)
    (tmp_path / "own" / "mine.toml").write_text(f"""
base = {str(member("base", 0))!r}
aligned = {str(member("aligned", 0))!r}
attacks = ["sums.jsonl"]
max_new_tokens = 16

[test]
forbidden = "forbidden.txt"
allowed = "allowed.txt"
""")
    return str(tmp_path / "own" / "mine.toml")


def test_its_files_lie_beside_it_and_it_is_asked_what_they_hold(world, tmp_path):
    assert pair_of(3, world=world) == (str(member("base", 0)), str(member("aligned", 0)))
    assert world_attacks(world) == [str(tmp_path / "own" / "sums.jsonl")]
    assert find_attack(world_attacks(world)[0], seed=2).data() == ROWS
    asked = world_questions(world, limit=4)
    first = sandbox_prompts("forbidden", "dev", limit=6)[:4]
    assert [p.text for p in asked.forbidden] == [p.text for p in first]
    assert (len(asked.allowed), asked.judge, asked.max_new_tokens) == (4, "keyword", 16)


def test_development_requests_that_are_not_named_are_asked_for(world):
    with pytest.raises(ValueError, match=r"mine.toml: has no \[dev\] requests"):
        world_questions(world, "dev")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("base =", "bse ="),
            "base, bse is missing, unknown or of another type; it takes",
        ),
        (("allowed = ", "alowed = "), r"\[test\] allowed, \[test\] alowed is missing, unknown"),
        (("[test]", "[test"), "no TOML"),
        (("attacks = [", "attacks = 7  # ["), "attacks is missing, unknown or of another"),
        (("attacks = [", "attacks = []\nxs = ["), "attacks, xs is missing, unknown or of another"),
        (("max_new_tokens = 16", "max_new_tokens = '16'"), "max_new_tokens is missing, unknown or"),
    ],
)
def test_a_file_with_another_field_or_without_one_is_refused(world, tmp_path, change, message):
    other = tmp_path / "own" / "other.toml"
    other.write_text(Path(world).read_text().replace(*change))
    with pytest.raises(ValueError, match=f"other.toml: {message}"):
        own_world(str(other))


@pytest.mark.slow
def test_figures_are_made_of_it_and_what_it_lacks_is_said(lox, world, tmp_path):
    call = ("figures", "--models", world, "--seeds", 0, "--workers", 1, "-o", "out")
    made = lox(*call, "--only", "3,spectrum")
    assert made.status == 0, made.err
    rows = json.loads((tmp_path / "out" / "r_bars.json").read_text())["rows"]
    assert {(row["attack"], row["measures"]["asr"]["n"]) for row in rows} == {("sums", 6)}
    assert "judge keyword" in (tmp_path / "out" / "r_bars.md").read_text()
    assert "walks are known for sandbox, smol" in lox(*call, "--only", "6").err
    assert "has no [dev] requests" in lox(*call, "--only", "5").err
    assert "use sandbox, smol, or a .toml file" in lox("figures", "--models", "nowhere.toml").err
