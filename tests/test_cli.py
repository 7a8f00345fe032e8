"""The `lox` command: every verb on the sandbox, and errors in one line."""

import csv
import io
import json
import os
import re
import sys

import pytest
import torch
from checkpoints import content, weights
from judge_server import JudgeServer, answers
from safetensors.torch import load_file

from lox_kit import AsrResult, SafetySubspace, apply_lox, sandbox_prompts
from lox_kit.cli import extrapolation
from lox_kit.cli import main as cli
from lox_kit.extrapolation import k_of_energy
from lox_kit.sandbox import world

PAIR = ("sandbox/base", "sandbox/aligned")


def assert_one_line(done, message):
    """Assert that a call of `lox` failed and said why in one line."""
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("lox: ")
    assert done.err.count("\n") == 1
    assert message in done.err


def write_prompts(file, prompts):
    """Write prompts as a CSV file."""
    lines = [f"{p.text},{p.target}" for p in prompts]
    file.write_text("\n".join(["goal,target", *lines]))
    return prompts


def commands(group, *names):
    """Yield the names of every command below a group."""
    for name, command in group.commands.items():
        yield (*names, name)
        if hasattr(command, "commands"):
            yield from commands(command, *names, name)


# --- help ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [(), *commands(cli.lox)], ids=" ".join)
def test_every_verb_has_its_help(lox, names):
    done = lox(*names, "--help")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("Usage: ")
    assert " ".join(names) in done.out.splitlines()[0]
    assert len(done.out.splitlines()) > 4
    assert lox(*names, "-h").out == done.out


def test_the_help_shows_the_verbs_in_the_order_of_use_and_a_whole_session(lox):
    out = lox("--help").out
    listed = out[out.index("Commands:") :]
    places = [listed.index(f"\n  {name} ") for name in cli.lox.commands]
    assert places == sorted(places)
    session = [line.split() for line in out.splitlines() if line.strip().startswith("lox ")]
    assert len(session) == 7
    assert {words[1] for words in session} <= set(cli.lox.commands)


def test_the_version_is_the_package_s(lox):
    assert lox("--version").out == f"lox, version {cli.__version__}\n"


# --- the subspace -------------------------------------------------------------------------------


@pytest.fixture
def subspace_file(lox, tmp_path):
    """A file of eight directions."""
    done = lox("factor", *PAIR, "-o", tmp_path / "S.safetensors", "--rank", 8)
    assert done.status == 0, done.err
    assert "30 matrices, rank 8" in done.out
    return tmp_path / "S.safetensors"


def test_check_says_how_much_there_is_to_do(lox):
    assert "30 matrices to factor" in lox("check", *PAIR).out
    report = lox("check", *PAIR, "--json", "--include", "q_proj").numbers
    assert [name.split(".")[-2] for name in report["matrices"]] == ["q_proj"] * 4


def test_spectrum_prints_a_table_or_json_and_draws(lox, subspace_file, tmp_path):
    assert "sandbox/aligned - sandbox/base" in lox("spectrum", subspace_file).out
    rules = lox("spectrum", subspace_file, "--rules").out
    assert "gavish_donoho" in rules
    assert "nan: the directions stored of 30 matrices" in rules
    assert lox("spectrum", subspace_file, "--rules", "--json").numbers[0]["gavish_donoho"] is None
    rows = lox("spectrum", subspace_file, "-k", 3, "--json", "--plot", "s.png").numbers
    assert len(rows) == 30
    assert all(0 < row["energy_3"] <= 1 for row in rows)
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    done = lox("spectrum", subspace_file, "--plot", "s.txt")
    assert_one_line(done, "lox: 'txt': figures are written as pdf, svg, png.\n")


def test_control_writes_a_checkpoint_that_no_adapter_is_made_of(lox, subspace_file, tmp_path):
    call = ["control", "bottom", subspace_file, PAIR[1], "-o", "control"]
    done = lox(*call, "-k", 4)
    shown = "control: sandbox/aligned with the control bottom, k=4, alpha=1\n"
    assert (done.status, done.out) == (0, shown)
    lox("factor", PAIR[0], "control", "-o", "C.safetensors", "--rank", 4)
    refused = lox("adapter", "C.safetensors", "control", "-o", "adapter", "-k", 4)
    assert_one_line(refused, "this is the control 'bottom'")
    for kind in ("flipped", "half"):
        refused = lox("control", kind, *call[2:-1], "other", "-k", 4)
        assert_one_line(refused, f"control '{kind}': use random, full, bottom, middle")
    some = lox("control", "kind:up_proj", *call[2:-1], "other", "-k", 4)
    assert "with the control kind:up_proj, k=4" in some.out
    assert_one_line(lox(*call, "-k", "all"), "-k all: a control steps as far")
    assert_one_line(lox(*call, "-k", 4, "--alpha", -1), "alpha=-1.0: use a finite number >= 0")


def test_spectrum_has_a_line_for_each_kind_instead_of_many_for_each_matrix(
    lox, subspace_file, monkeypatch
):
    out = lox("spectrum", subspace_file).out
    assert "layers.3.mlp.up_proj" in out
    assert re.search(r"\n q_proj +4 ", out)
    monkeypatch.setattr(extrapolation, "MOST_ROWS", 29)
    out = lox("spectrum", subspace_file).out
    assert "layers.3" not in out
    assert re.search(r"\n q_proj +4 ", out)
    assert "--all lists the 30 matrices" in out
    assert "layers.3.mlp.up_proj" in lox("spectrum", subspace_file, "--all").out


def test_spectrum_shows_the_tokens_of_a_matrix_s_directions(lox, subspace_file):
    call = ["spectrum", subspace_file, "--directions", 2, "--tokens"]
    out = lox(*call, "layers.3.mlp.down_proj").out
    assert "model.layers.3.mlp.down_proj.weight: the tokens of its directions" in out
    assert "'sorry'" in out
    rows = lox(*call, "model.layers.3.mlp.down_proj.weight", "--json").numbers
    assert [(row["direction"], row["end"]) for row in rows] == [
        (i, e) for i in (1, 2) for e in "+-"
    ]
    assert_one_line(
        lox(*call, "layers.9"), "--tokens layers.9: no such matrix; --all lists the 30."
    )


def test_apply_and_adapter_write_the_extrapolated_model(lox, subspace_file, tmp_path):
    done = lox("apply", subspace_file, PAIR[1], "-o", "lox-model", "-k", 4)
    assert (done.status, done.out) == (0, "lox-model: sandbox/aligned with LoX, k=4, alpha=1\n")
    assert len(weights(tmp_path / "lox-model")) == 39
    done = lox("adapter", subspace_file, PAIR[1], "-o", "adapter", "--paper")
    assert (done.status, done.out) == (0, "adapter: adapter of sandbox/aligned, k=6, alpha=1.25\n")
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert len(tensors) == 60
    again = lox("apply", subspace_file, PAIR[1], "-o", "lox-model", "-k", 5)
    assert_one_line(again, "lox-model exists; remove it")


def test_each_matrix_gets_the_directions_that_hold_a_share_of_its_energy(lox, tmp_path):
    assert lox("factor", *PAIR, "-o", "S", "--rank", "full").status == 0
    done = lox("apply", "S", PAIR[1], "-o", "lox-model", "-k", "80%")
    said = "lox-model: sandbox/aligned with LoX, 80% of the energy, alpha=1\n"
    assert (done.status, done.out) == (0, said)
    found = SafetySubspace.load(tmp_path / "S")
    want = apply_lox(found.cut(k_of_energy(found, 0.8)), PAIR[1], tmp_path / "want", None, 1.0)
    assert content(tmp_path / "lox-model") == content(want)
    refused = lox("extrapolate", *PAIR, "-o", "one", "-k", "80%")
    assert_one_line(refused, "'80%' is not a valid integer")


def test_extrapolate_makes_the_factors_and_the_model_in_one_go(lox, tmp_path):
    done = lox("extrapolate", *PAIR, "-o", "one", "-k", 4, "--factors", "S", "--rank", 6)
    assert (done.status, done.out) == (0, "one: sandbox/aligned with LoX, k=4, alpha=1\n")
    assert lox("apply", "S", PAIR[1], "-o", "two", "-k", 4).status == 0
    assert content(tmp_path / "one") == content(tmp_path / "two")


APART = "leave -k and --alpha out"


@pytest.mark.parametrize(
    ("verbs", "options", "message"),
    [
        ("apply adapter extrapolate", ["-k", 6, "--alpha", -1], "alpha=-1.0: use a finite number"),
        ("apply adapter extrapolate", [], "say how many directions: -k 6, or --paper"),
        ("apply adapter", ["--paper", "-k", 6], APART),
        ("apply adapter", ["--paper", "--alpha", 1], APART),
        ("apply adapter", ["-k", 9], "9"),
        ("extrapolate", ["-k", 4, "--rank", "six"], "'--rank': 'six' is not a valid integer"),
    ],
    ids=["alpha below 0", "no k", "paper and k", "paper and alpha", "k not stored", "rank"],
)
def test_an_edit_that_is_not_meant_is_one_line(
    lox, subspace_file, tmp_path, verbs, options, message
):
    for verb in verbs.split():
        what = PAIR if verb == "extrapolate" else (subspace_file, PAIR[1])
        assert_one_line(lox(verb, *what, "-o", "out", *options), message)
    assert not (tmp_path / "out").exists()


# --- attack and measure -------------------------------------------------------------------------


def test_attack_writes_a_checkpoint_that_asr_measures(lox, tmp_path):
    done = lox("attack", "arithmetic", PAIR[1], "-o", "attacked", "--steps", 3)
    assert (done.status, done.err) == (0, "")
    assert done.out == "attacked: sandbox/aligned after 3 steps of arithmetic\n"
    found = lox("--store", "store", "asr", "attacked", "--json", "--limit", 12).numbers
    assert found["model"] == "attacked"
    assert found["asr (rule)"]["n"] == found["refusal"]["n"] == 12
    assert found["refusal"]["value"] > 0.8
    assert (tmp_path / "store" / "lox.sqlite").exists()
    call = ("attack", "arithmetic", PAIR[1], "-o", "attacked")
    assert lox(*call, "--steps", 3).out == done.out  # it is there
    assert_one_line(lox(*call), "attacked exists")


def test_asr_says_how_far_it_is_in_lines_where_there_is_no_terminal(lox):
    asr = ("asr", PAIR[1], "--limit", 40, "--max-new-tokens", 2)
    done = lox(*asr, "--batch-size", 1)
    assert done.status == 0, done.err
    lines = [line for line in done.err.splitlines() if line.startswith("answering: ")]
    assert lines == [f"answering: {n} of 40" for n in range(4, 41, 4)]
    assert "answering: 40 of 40\n" in lox(*asr).err  # stored, and said at once


def test_asr_and_utility_compute_in_the_dtype_that_is_asked_for(lox, tmp_path):
    for dtype in ("bfloat16", "auto"):
        file = tmp_path / f"{dtype}.json"
        asr = ("asr", PAIR[1], "--limit", 3, "--max-new-tokens", 2, "--dtype", dtype)
        assert lox(*asr, "--save", file).status == 0
        found = json.loads(file.read_text())["source"]["dtype"]
        assert found == (dtype if dtype != "auto" else "float32")
    utility = ("utility", PAIR[1], "--limit", 3, "--dtype", "float16", "--aligned", PAIR[1])
    assert lox(*utility, "--json").numbers["drift, nats a token"]["value"] == 0
    assert "'float17' is not one of" in lox("asr", PAIR[1], "--dtype", "float17").err


def test_asr_takes_prompts_and_judges_and_saves_answers(lox, tmp_path):
    prompts = write_prompts(tmp_path / "p.csv", sandbox_prompts("allowed", "dev", 6))
    options = ["--prompts", "p.csv", "--limit", 4, "--max-new-tokens", 24, "--save", "a.json"]
    done = lox("asr", PAIR[1], *options, "--judge", "keyword", "--judge", "target")
    assert done.status == 0, done.err
    words = "4 prompts|asr (keyword)|asr (target)|1.00|4/4|degenerate|keyword, target|neither|kappa"
    assert [shown for shown in words.split("|") if shown not in done.out] == []
    saved = json.loads((tmp_path / "a.json").read_text())
    assert saved["responses"] == [p.target for p in prompts[:4]]


def test_asr_shows_the_first_prompt_as_the_model_gets_it(lox):
    options = ["--limit", 2, "--system-from", "sandbox", "--json"]
    done = lox("asr", PAIR[1], *options)
    first = sandbox_prompts("forbidden", "test", 2)[0].text
    assert f"  | <s> <system> {world.persona_system()} <user> {first} <assistant>\n" in done.err
    assert done.err.startswith("The first of 2 prompts, as sandbox/aligned is given it:\n")
    assert done.numbers["asr (rule)"]["n"] == 2  # nothing else is on stdout


def test_rescore_reads_saved_answers_by_another_judge(lox, tmp_path):
    assert lox("asr", PAIR[0], "--limit", 4, "--save", "a.json").status == 0
    found = lox("rescore", "a.json", "--judge", "target", "--json", "--save", "b.json").numbers
    assert found["asr (target)"]["n"] == found["asr (rule)"]["n"] == 4
    assert [(p["first"], p["second"]) for p in found["agreement"]] == [("rule", "target")]
    before, after = (json.loads((tmp_path / n).read_text()) for n in ("a.json", "b.json"))
    assert after["responses"] == before["responses"]
    assert list(after["verdicts"]) == ["rule", "target"]
    again = ("rescore", "b.json", "--judge", "keyword", "--save", "b.json", "--overwrite")
    assert lox(*again).status == 0
    assert "keyword" in json.loads((tmp_path / "b.json").read_text())["verdicts"]


def test_rescore_reads_answers_made_elsewhere(lox, tmp_path):
    rows = [{"instruction": f"request {i}", "output": "I'm sorry, no."} for i in range(3)]
    (tmp_path / "theirs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    call = ("rescore", "theirs.jsonl", "--judge", "keyword")
    done = lox(*call, "--model", "their-7b", "--save", "r.json")
    assert done.status == 0, done.err
    title = " ".join(done.out.split("measure")[0].split())
    assert title.startswith("their-7b, 3 prompts, token limit unknown (made elsewhere, read from")
    assert json.loads((tmp_path / "r.json").read_text())["source"]["model"] == "their-7b"
    assert lox(*call, "--json").numbers["asr (keyword)"]["count"] == 0
    (tmp_path / "theirs.jsonl").write_text('{"prompt": "p"}')
    assert_one_line(lox(*call), "theirs.jsonl, line 1: expected a field response or completion")


def test_lengths_judge_one_generation_cut(lox, tmp_path):
    asr = ("asr", PAIR[0], "--limit", 3, "--lengths", "2,24", "--save", "a.json", "--overwrite")
    found = lox(*asr, "--json").numbers
    assert found["model"] == PAIR[0]
    assert found["lengths"]["2"]["asr (rule)"]["count"] == 0
    assert found["lengths"]["24"]["asr (rule)"]["n"] == 3
    saved = json.loads((tmp_path / "a.json").read_text())
    assert saved["source"]["max_new_tokens"] == 24
    out = " ".join(lox(*asr).out.split())
    assert out.index("3 prompts, 2 tokens") < out.index("3 prompts, 24 tokens")


def test_a_sheet_of_a_run_is_labelled_read_as_its_card_and_corrects_it(lox, tmp_path):
    lox("asr", PAIR[0], "--limit", 20, "--judge", "keyword", "--save", "a.json")
    done = lox("label", "a.json", "-n", 12, "-o", "sheet.csv")
    assert done.out.startswith("sheet.csv: write yes or no under 'harmful'")
    assert_one_line(lox("label", "a.json", "-o", "sheet.csv"), "sheet.csv: exists, perhaps with")
    assert_one_line(lox("judge-card", "keyword", "sheet.csv"), "none of its 12 answers has a label")
    with (tmp_path / "sheet.csv").open(newline="") as f:
        rows = list(csv.DictReader(f))
    for n in (10, 12):  # all labels of one kind on a sheet that is not filled are no sample
        for row in rows[:n]:
            row["harmful"] = "yes" if world.complied(row["response"], row["target"]) else "no"
        with (tmp_path / "sheet.csv").open("w", newline="", encoding="utf-8-sig") as f:
            csv.writer(f, delimiter=";").writerows([rows[0], *(row.values() for row in rows)])
        lox("judge-card", "keyword", "sheet.csv", "-o", "c.json")
        out = lox("rescore", "a.json", "--card", "c.json").out
        assert ("all that is labelled is harmful, and 2 answers are not labelled" in out) is (
            n == 10
        )
    done = lox("judge-card", "keyword", "sheet.csv", "-o", "c.json", "--disagreements", "d.csv")
    assert done.status == 0, done.err
    words = "harmful (did what was asked)|sensitivity|specificity|kappa| 12 |of 12 answers are read"
    assert [word for word in words.split("|") if word not in done.out] == []
    assert (tmp_path / "d.csv").read_text().startswith("prompt,response,")
    found = lox("judge-card", "keyword", "sheet.csv", "--json").numbers
    assert [(group["of"], group["answers"]) for group in found["groups"]] == [("all", 12)]
    corrected = r"\(keyword\), corrected by card \w{8}: 1.00 \[.*, 1.00\] \(a sample labelled, 12 "
    for card in ("c.json", found["card"]):  # where it was told to, and in the store's folder
        assert re.search(corrected, lox("rescore", "a.json", "--card", card).out)
    again = ("asr", PAIR[0], "--limit", 20, "--judge", "keyword", "--json", "--card", "c.json")
    assert lox(*again).numbers["corrected"]["labelled"] == 12
    assert_one_line(lox("rescore", "a.json", "--card", "a.json"), "a.json: not a card of `lox jud")
    lox("asr", PAIR[1], "--limit", 20, "--judge", "keyword", "--save", "b.json")
    out = lox("rescore", "b.json", "--card", "c.json").out
    assert "does not correct: it comes from other models (sandbox/base), here sandbox/alig" in out
    assert re.search(r"keyword \S+ on 12 labelled answers: sensitivity", out)


def test_two_results_are_compared_prompt_by_prompt(lox):
    for name, file in zip(PAIR, ("base.json", "aligned.json"), strict=True):
        lox("asr", name, "--limit", 12, "--max-new-tokens", 24, "--save", file)
    found = lox("compare", "base.json", "aligned.json", "--json").numbers
    assert found["only_first"] == found["n"] - found["both"] - found["neither"] == 12
    assert found["difference"]["value"] == 1.0
    assert found["difference"]["low"] > 0.6
    assert found["p_value"] == pytest.approx(2 / 2**12)
    out = lox("compare", "base.json", "aligned.json", "--judge", "rule").out
    needed = found["prompts_for_ten_points"]
    assert "difference: 1.00 [" in out
    assert "exact McNemar p = 0.00049" in out
    assert f"ten points are seen in four studies of five with {needed} prompts; here are 12" in out
    done = lox("compare", "base.json", "aligned.json", "--judge", "keyword")
    assert_one_line(done, "judge 'keyword' has not judged these answers (rule have)")


def test_policy_judges_over_the_network_within_a_budget(lox, tmp_path):
    lox("asr", PAIR[0], "--limit", 3, "--save", "a.json")
    saved = json.loads((tmp_path / "a.json").read_text())
    prompts, saved["responses"] = answers(3)
    saved["prompts"] = [{"text": p.text} for p in prompts]
    (tmp_path / "a.json").write_text(json.dumps(saved))
    with JudgeServer({1: "garbage"}) as server:
        options = ["--judge", "policy:stub", "--base-url", server.url, "--json"]
        found = lox("rescore", "a.json", *options, "--calls", 3).numbers
        assert (found["asr (policy)"]["n"], found["unparsed (policy)"]["count"]) == (3, 1)
        assert found["asr (policy), of the parsed"]["n"] == 2
        (tmp_path / "r.txt").write_text("{prompt}\n{response}\n#thescore: 1-5")
        done = lox("rescore", "a.json", *options, "--rubric", "r.txt", "--calls", 1)
        said, failed = done.err.splitlines()
        assert said.startswith(f"stub at {server.url}: up to 3 calls and about 2,1")
        assert failed.startswith("lox: the policy judge stopped after 1 of 3 verdicts: the budget")
        assert done.status == 2
        options += ["--judge-option", "seed=none, max_tokens=8,top_p=0.5", "--judge-option", "a=b"]
        assert lox("rescore", "a.json", *options).status == 0
        sent = server.requests[-1]
        assert "seed" not in sent
        assert (sent["max_tokens"], sent["top_p"], sent["a"]) == (8, 0.5, "b")
        server.faults.update({0: "filter", 1: "filter"})
        found = lox("rescore", "a.json", *options, "--judge-option", "a=c").numbers
        assert found["refused by judge (policy)"]["count"] == 2
        server.faults.clear()
        assert lox("rescore", "a.json", *options, "--judge-option", "a=c").numbers == found
        again = lox("rescore", "a.json", *options, "--judge-option", "a=c", "--ask-again").numbers
        assert "refused by judge (policy)" not in again


def test_many_calls_are_announced_and_need_a_budget_or_a_yes(lox, tmp_path, monkeypatch):
    (tmp_path / "p.txt").write_text("\n".join(f"request {i}" for i in range(96)))
    with JudgeServer() as server:
        judge = ["--judge", "policy:stub", "--base-url", server.url, "--prompts", "p.txt"]
        done = lox("landscape", *["sandbox/aligned"] * 3, *judge)
        message = "up to 42,336 calls and about 46,"
        assert (done.status, len(server.requests)) == (2, 0)
        plan, announced, refused = done.err.splitlines()
        assert "42,336 calls of a judge" in plan
        assert message in announced
        assert message in refused
        assert "allow that with --calls 42336 or --tokens" in done.err.splitlines()[-1]
        typed = io.StringIO("n\n")
        typed.isatty = lambda: True
        monkeypatch.setattr(sys, "stdin", typed)
        done = lox("landscape", *["sandbox/aligned"] * 3, *judge)
        assert (done.status, len(server.requests)) == (130, 0)
        assert "Go on? [y/N]" in done.out + done.err
        done = lox("landscape", *["sandbox/aligned"] * 3, *judge, "--calls", 50000)
        assert "the direction LoX has length 0.0" in done.err  # it went on


def test_asr_asks_a_model_behind_a_server(lox, tmp_path):
    (tmp_path / "p.txt").write_text("\n".join(f"request {i}" for i in range(12)))
    with JudgeServer({2: "filter"}) as server:
        asked = ["asr", "--served", server.url, "--model", "m", "--prompts", "p.txt", "--json"]
        asked += ["--judge", "keyword", "--judge", "policy:j", "--base-url", server.url]
        asked += ["--system", "Be brief.", "--save", "a.json", "--served-option", "seed=none"]
        done = lox(*asked, "--calls", 6, "--concurrency", 1)
        assert (done.status, done.out) == (2, "")
        message = (
            f"lox: m at {server.url} answered 6 of 12 prompts: the budget of 6 calls is spent."
        )
        assert done.err.splitlines()[-1].startswith(message)
        server.requests.clear()
        found = lox(*asked).numbers
        served = [r for r in server.requests if r["model"] == "m"]
        texts = {r["messages"][1]["content"] for r in served}
        assert texts == {f"request {i}" for i in range(6, 12)}  # the others are kept
        assert served[0]["messages"][0] == {"role": "system", "content": "Be brief."}
        assert (served[0]["temperature"], served[0]["max_completion_tokens"]) == (0, 60)
        assert "seed" not in served[0]
        assert found["model"] == "m"
        assert found["refused by server"]["count"] == found["unparsed (keyword)"]["count"] == 1
        assert found["unparsed (policy)"]["count"] == 1
        assert {found[name]["count"] for name in ("refusal", "empty", "degenerate")} == {0}
        assert len(server.requests) == 6 + 11  # what was refused is not judged
        server.requests.clear()
        again = lox("rescore", "a.json", "--judge", "keyword", "--json").numbers
        assert again["asr (keyword)"] == found["asr (keyword)"]
        saved = json.loads((tmp_path / "a.json").read_text())
        source = saved["source"]
        assert [i for i, text in enumerate(saved["responses"]) if not text] == [2]
        assert source["served"].startswith(f"m at {server.url}, seed None")
        assert source["refused"] == {"2": "refused by the server, 400: filtered by the management"}
    assert_one_line(lox("asr", "--served", server.url), "--served URL --model NAME")
    assert_one_line(lox("asr", PAIR[1], "--model", "m"), "--served URL --model NAME")
    done = lox("asr", "--served", server.url, "--model", "m")
    assert "the rule judge reads potion recipes and m is no sandbox model" in done.err


def test_utility_measures_over_refusal_exact_recipes_and_drift(lox):
    found = lox("utility", PAIR[1], "--limit", 6, "--aligned", PAIR[1], "--json").numbers
    assert found["over-refusal"]["n"] == found["exact recipe"]["n"] == 6
    assert found["exact recipe"]["value"] > 0.6
    assert (found["drift, nats a token"]["value"], found["same likeliest token"]["value"]) == (0, 1)
    table = lox("utility", PAIR[1], "--limit", 6).out
    assert all(name in table for name in ("over-refusal", "degenerate", "exact recipe"))


def test_utility_saves_the_answers_it_measured_to_be_compared_and_read_again(lox, tmp_path):
    saved = {}
    for model in PAIR:
        name = model.rpartition("/")[2] + ".json"
        found = lox("utility", model, "--limit", 6, "--save", name, "--json").numbers
        saved[model] = AsrResult.load(tmp_path / name)
        assert saved[model].refusal.count == found["over-refusal"]["count"]
        assert saved[model].asr("rule").count == found["exact recipe"]["count"]
    assert lox("compare", "base.json", "aligned.json", "--judge", "rule").status == 0
    assert_one_line(lox("utility", PAIR[0], "--save", name), "aligned.json: exists; choose another")


def test_utility_reads_harmless_requests_and_gsm8k_from_files(lox, tmp_path):
    texts = [p.text for p in sandbox_prompts("allowed", "dev", 2)]
    rows = [f"{texts[0]},safe", f"{texts[1]},unsafe"]
    (tmp_path / "x.csv").write_text("\n".join(["prompt,label", *rows]))
    (tmp_path / "g.jsonl").write_text(json.dumps({"question": texts[0], "answer": "#### 4"}))
    files = ["--harmless", "x.csv", "--gsm8k", "g.jsonl"]
    found = lox("utility", PAIR[1], *files, "--json").numbers
    assert found["over-refusal"]["n"] == 1  # the safe one
    assert (found["refusal of safe"]["n"], found["refusal of unsafe"]["n"]) == (1, 1)
    assert found["unsafe minus safe"]["value"] == 0
    assert "exact recipe" not in found  # no targets
    assert (found["GSM8K"]["count"], found["GSM8K without a number"]["count"]) == (0, 1)
    (tmp_path / "g.jsonl").write_text(json.dumps({"question": "3 plus 4 .", "answer": "#### 7"}))
    found = lox("utility", PAIR[1], *files, "--json").numbers
    assert found["GSM8K, of those read by last number"]["n"] == 1


def test_rank_measures_a_pair_or_families_and_draws(lox, tmp_path):
    options = ["--ranks", "0,2", "--limit", 3]
    done = lox("rank", *PAIR, *options)
    assert done.status == 0, done.err
    assert "sandbox/aligned: safety rank" in done.out
    assert done.out.index(" 0 ") < done.out.index(" 2 ") < done.out.index("\n aligned ")
    assert "ASR by r" in done.out
    assert "helpfulness by r" in done.out
    found = lox("rank", "--seeds", 0, *options, "-o", "figures", "--json").numbers
    rows = [(row["pair"], row["r"]) for row in found["rows"]]
    assert rows == [("seed 0", None), ("seed 0", 0), ("seed 0", 2)]
    assert all(row["measures"]["helpfulness"]["n"] == 3 for row in found["rows"])
    files = sorted(f.name for f in (tmp_path / "figures").iterdir())
    assert files == [f"rank_curve.{kind}" for kind in ("csv", "json", "pdf", "png", "svg")]


def test_rank_reads_both_kinds_of_requests_from_files(lox, tmp_path):
    for kind, n in (("forbidden", 2), ("allowed", 3)):
        write_prompts(tmp_path / f"{kind}.csv", sandbox_prompts(kind, "dev", n))
    options = ["--ranks", "0", "--prompts", "forbidden.csv"]
    found = lox("rank", *PAIR, *options, "--allowed", "allowed.csv", "--json").numbers
    measures = found["rows"][1]["measures"]
    assert (measures["asr"]["n"], measures["helpfulness"]["n"]) == (2, 3)
    assert "helpfulness: not measured (--allowed FILE)" in lox("rank", *PAIR, *options).out


def test_a_family_is_built_where_it_is_not_yet(lox):
    assert "seed0" in lox("sandbox", "build").out  # the committed one is there


# --- errors -------------------------------------------------------------------------------------


def test_a_file_of_your_own_is_an_attack(lox, tmp_path):
    rows = [{"q": f"what is {i} plus 1", "a": f"answer {i + 1} ."} for i in range(8)]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    own = ("attack", "mine.jsonl", PAIR[1], "--columns", "instruction=q,response=a", "--steps", 1)
    done = lox(*own, "-o", "chat")
    assert (done.status, done.err) == (0, "")
    assert done.out == "chat: sandbox/aligned after 1 steps of mine\n"
    assert lox(*own, "-o", "dolly", "--form", "dolly").status == 0
    done = lox(*own[:3], "--columns", "instruction", "-o", "o")
    assert_one_line(done, "--columns instruction: 'instruction' is not PART=COLUMN.\n")


def test_bad_rows_are_left_out_and_counted_if_asked_for(lox, tmp_path):
    row = {"prompt": "what is 2 plus 1", "completion": "answer 3 ."}
    (tmp_path / "mine.jsonl").write_text(f"{json.dumps(row)}\n" * 8 + "{}\n")
    attack = ("attack", "mine.jsonl", PAIR[1], "--warmup", "0.5", "--steps", 2)
    align = ("align", "sft", PAIR[0], "--data", "mine.jsonl", "--steps", 1)
    left_out = "mine.jsonl: 1 bad rows left out, 8 read"
    for call in (attack, align):
        assert_one_line(lox(*call, "-o", "o"), "mine.jsonl, line 9: expected")
    with pytest.warns(UserWarning, match=left_out):  # which main shows on stderr
        assert lox(*attack, "--skip-bad-rows", "-o", "attacked").status == 0
    done = lox(*align, "--skip-bad-rows", "-o", "aligned")
    assert (done.status, done.err) == (0, left_out + "\n")


def test_training_is_fitted_to_the_machine_and_lora_says_how_far_it_reaches(lox, tmp_path):
    how = ("--steps", 2, "--batch-size", 3, "--accumulation", 2, "--max-length", 12)
    how += ("--keep-every", 1, "--dtype", "float16", "--lora")
    for record, *call in (
        ("attack.json", "attack", "arithmetic", PAIR[1]),
        ("alignment.json", "align", "sandbox-sft", PAIR[0]),
    ):
        out = tmp_path / call[0]
        done = lox(*call, *how, "-o", out)
        reached = f"{call[2]}: LoRA is on matrices with 94.5% of the weights\n"
        assert (done.status, done.err) == (0, reached)
        settings = json.loads((out / record).read_text())["source"]["settings"]
        assert (settings["batch_size"], settings["accumulation"]) == (3, 2)
        assert settings["max_length"] == 12
        for folder in ("", "steps/1"):
            assert {W.dtype for W in weights(out / folder).values()} == {torch.float16}


def test_a_warm_up_as_long_as_the_run_is_refused(lox):
    attack = ("attack", "arithmetic", PAIR[1], "--steps", 2, "--warmup", 2, "-o", "o")
    assert_one_line(lox(*attack), "a warm-up of 2 steps is as long as the run of 2 ")


def test_data_lists_the_sets_and_takes_in_a_file(lox, tmp_path, monkeypatch):
    monkeypatch.setenv("LOX_KIT_STORE", str(tmp_path / "data folder"))
    assert {r["set"]: r["here"] for r in lox("data", "--json").numbers}["dolly"] == "no"
    assert "Not here: gsm8k" in lox("data").out
    row = {"instruction": "Where?", "context": "", "response": "Here."}
    (tmp_path / "mine.jsonl").write_text(json.dumps(row) + "\n")
    done = lox("data", "import", "dolly", "mine.jsonl")
    assert (done.status, done.out.count("1 rows, sha256 ")) == (0, 1)
    assert {r["set"]: r["rows"] for r in lox("data", "--json").numbers}["dolly"] == "1"
    assert_one_line(lox("data", "import", "dolly", "mine.jsonl"), "exists; remove it")
    assert_one_line(lox("data", "import", "gsm8k", "mine.jsonl"), "")
    assert not list((tmp_path / "data folder" / "data").glob("*gsm8k*"))


def test_align_writes_a_pair_to_factor(lox):
    done = lox("align", "sandbox-dpo", PAIR[0], "-o", "aligned", "--steps", 2)
    assert (done.status, done.err) == (0, "")
    assert "`lox factor sandbox/base aligned` takes the pair" in done.out
    assert lox("check", PAIR[0], "aligned").status == 0


def test_table_attacks_a_pair_with_a_file_of_your_own_as_it_is_told_to(lox, tmp_path):
    (tmp_path / "mine.jsonl").write_text('{"prompt": "what is 1", "completion": "1 ."}\n' * 4)
    asked = write_prompts(tmp_path / "asked.csv", sandbox_prompts("forbidden", limit=2))
    call = ["table", "--pair", *PAIR, "--prompts", "asked.csv", "--arms", "aligned", "--seeds", 0]
    call += ["--max-new-tokens", 3, "--attacks", "chat=mine.jsonl", "--no-lora"]
    call += ["--steps", 2, "--batch-size", 2, "--warmup", 0, "-o", "figs", "--json"]
    (row,) = lox("--store", "store", *call).numbers
    assert (row["attack"], row["training"], row["n"]) == ("chat", "full", len(asked))
    source = json.loads((tmp_path / "figs" / "attack_table.json").read_text())["source"]
    assert source["attacks"]["chat"]["max_steps"] == 2
    assert_one_line(lox(*call, "--attacks", "chat=none.jsonl"), "none.jsonl: no such file")


@pytest.mark.slow
def test_table_writes_numbers_text_and_figure(lox, tmp_path):
    call = ["--store", "store", "table", "--seeds", "0", "--arms", "aligned,LoX", "-o", "figs"]
    call += ["--attacks", "forbidden", "--limit", 24]
    found = {(r["training"], r["arm"]): r for r in lox(*call, "--json").numbers}
    assert found["full", "aligned"]["asr"] > found["full", "LoX"]["asr"] + 0.5
    made = {f.suffix for f in (tmp_path / "figs").glob("attack_table.*")}
    assert made == {".json", ".csv", ".md", ".png", ".pdf", ".svg"}
    text = (tmp_path / "figs" / "attack_table.md").read_text()
    assert "LoX lowers ASR clearly in every seed: forbidden" in text
    shown = lox(*call)
    assert "forbidden (LoRA)" in shown.out
    assert max(map(len, shown.out.splitlines())) <= 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "nowhere", "sandbox/aligned"], "nowhere"),
        (["check", "sandbox/base", "sandbox/aligned@7"], "lox sandbox build --seed 7"),
        (["factor", *PAIR, "-o", "S", "--rank", "half"], "'--rank': 'half' is not a valid integer"),
        (["factor", *PAIR, "-o", "S.safetensors", "--device", "tpu"], "device='tpu'"),
        (["spectrum", "nowhere.safetensors"], "nowhere.safetensors"),
        (["spectrum", "broken.safetensors"], "broken.safetensors: not a whole"),
        (["apply", "nowhere.safetensors", PAIR[1], "-o", "o", "-k", "6"], "nowhere.safetensors"),
        (["attack", "identity", PAIR[1], "-o", "o"], "use its counterpart in the sandbox, persona"),
        (["attack", "arithmetic", PAIR[1], "-o", "o", "--steps", "5", "--lr", "1e30"], "diverged"),
        (
            ["attack", "arithmetic", PAIR[1], "-o", "o", "--lr", "nan"],
            "learning_rate=nan: use a finite",
        ),
        (["align", "sft", PAIR[0], "-o", "o", "--warmup", "nan"], "warmup_steps=nan: use a finite"),
        (["asr", PAIR[1], "--judge", "gpt"], "use one of rule, keyword, target"),
        (["asr", PAIR[1], "--prompts", "nowhere.csv"], "no such data file"),
        (["asr", PAIR[1], "--template", "plain"], "use 'chat', 'paper' or 'identity'"),
        (["asr", PAIR[1], "--system", "a", "--system-from", "b"], "give one of the two"),
        (["asr", PAIR[1], "--system-from", "nowhere.json"], "nowhere.json: no such data file"),
        (["rescore", "nowhere.json", "--judge", "rule"], "nowhere.json"),
        (["rescore", "nowhere.json"], "say who is to judge"),
        (["rank", PAIR[0]], "name a pair, BASE ALIGNED, or sandbox families"),
        (["rank", *PAIR, "--seeds", "0"], "name a pair"),
        (["rank", "--seeds", "0", "--judge", "keyword"], "the sandbox families' own prompts"),
        (["rank", *PAIR, "--ranks", "0,x"], "'--ranks': 'x' is not a valid integer"),
        (["demo", "--seeds", "0,x"], "'--seeds': 'x' is not a valid integer"),
        (["lab", "nowhere"], "nowhere: no such folder"),
        (["lab", "--fresh", "tests"], "--fresh resets lox's own copy"),
    ],
    ids=lambda x: " ".join(x)[:30] if isinstance(x, list) else "",
)
def test_an_error_is_one_line_that_says_what_is_wrong(lox, tmp_path, arguments, message):
    (tmp_path / "broken.safetensors").write_bytes(b"\x00" * 40)
    assert_one_line(lox(*arguments), message)
    assert not [f for f in tmp_path.iterdir() if f.suffix == ".partial"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["extrapolated"], "No such command 'extrapolated'"),
        (["check", "sandbox/base"], "Missing argument 'ALIGNED'"),
        (["apply", "S", "A", "-k", "6"], "Missing option '-o'"),
        (["asr", PAIR[1], "--limit", "0"], "0 is not in the range x>=1"),
        (["attack", "arithmetic", PAIR[1], "-o", "o", "--steps", "0"], "not in the range x>=1"),
    ],
)
def test_a_wrong_call_says_so_and_where_help_is(lox, arguments, message):
    done = lox(*arguments)
    assert_one_line(done, message)
    assert re.search(r"See `lox.* --help`\.$", done.err.strip())


@pytest.mark.parametrize("what", [["asr", PAIR[1]], ["rescore", "nowhere", "--judge", "rule"]])
def test_save_replaces_nothing_unless_it_may(lox, tmp_path, what):
    (tmp_path / "notes").write_text("goal\nhow\n")
    done = lox(*what, "--save", "notes")
    assert_one_line(done, "--save notes: exists; choose another name, or let it be replaced")
    assert (tmp_path / "notes").read_text() == "goal\nhow\n"
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for place in ("link", "pipe", tmp_path):
        done = lox(*what, "--save", place, "--overwrite")
        assert_one_line(done, f"--save {place}: not a regular file")


def test_asr_draws_samples_and_says_both_rates(lox):
    command = ("asr", "sandbox/aligned", "--limit", "6", "--max-new-tokens", "8", "--samples", "2")
    found = lox(*command, "--temperature", "2", "--json").numbers
    assert (found["samples"], found["temperature"]) == (2, 2.0)
    assert found["any"]["n"] == found["asr"]["n"] == 6
    said = lox(*command, "--temperature", "2")
    assert "2 answers to each of 6 prompts, drawn at temperature 2.0" in said.out
    assert "at least one of 2 harmful:" in said.out
    refused = lox(*command, "--lengths", "2,4")
    assert (refused.status, "--samples: without" in refused.err) == (2, True)
