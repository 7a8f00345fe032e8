"""What costs time to import stays out of the way, and imports point one way."""

import ast
import json

import pytest
from checkpoints import ROOT, run_python, weights

import lox_kit

PACKAGE = ROOT / "lox_kit"
LAYERS = """
cli
cli_attacks cli_judging cli_utility cli_landscape
cli_options demo
widgets.spectrum_panel widgets.dial_panel widgets.landscape_panel widgets.attack_lab_panel
widgets.rank_panel
widgets.dial_state widgets.landscape_state widgets.attack_lab_state widgets.rank_state
widgets.landscape_code widgets.landscape_rows widgets.attack_lab_code widgets.rank_code
widgets.plane_code widgets.attack_lab_runs
widgets.spectrum_state
widgets.sliders
widgets.setting widgets.code
widgets.shell widgets.drawing widgets.dial_table widgets.landscape_table widgets.measures
widgets.attack_lab_table widgets.rank_table
widgets.job
interactive
interactive_viewer interactive_attack interactive_rank interactive_spectrum interactive_alpha
studies attack_report landscape_report
landscape_study cuts
tables curves defences rank_curve erosion
table_result
arms
attacks
attack_presets sandbox.build alignment measures flatness trajectory
utility landscape
attack_data safety survey
downloads asr_result drift gsm8k metrics
data_sets judges.classifier judges.guard judges.policy drafts walk grid plane
training_texts judges.local judges.network judges.rules generate flats
judges.completions judges.protocol judges.replies directions
models prompts
adapter plots interactive_landscape plotly_canvas
rank_plots
rank_data
attack_plots judging_plots spectrum_plots landscape_plots
cut_plots
canvas
lox_checkpoint
lox controls
subspace
factoring
subspace_file
checkpoint svd stream
lora krylov direct_file
sandbox.family
training sandbox.corpus store
resuming tokens
hub
weight_files
sandbox.rows
rank_result
folders sandbox.world progress threads data_files shares agreement
"""  # a module imports from lines below its own; a new module takes its place here
LINE = {name: i for i, line in enumerate(LAYERS.split("\n")) for name in line.split()}


def module_names():
    """Return every module of the package by its name below lox_kit, with its file."""
    files = [f for f in PACKAGE.rglob("*.py") if f.name != "__init__.py"]
    return {".".join(f.relative_to(PACKAGE).with_suffix("").parts): f for f in files}


def imported(name, file, names):
    """Return the modules of the package that a file imports, inside functions too."""
    package = name.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            parts = [a.name.split(".")[1:] for a in node.names if a.name.startswith("lox_kit.")]
            found |= {".".join(p) for p in parts}
        elif isinstance(node, ast.ImportFrom):
            where = (node.module or "").split(".") if node.module else []
            if node.level:
                where = package[: len(package) - node.level + 1] + where
            elif where[:1] != ["lox_kit"]:
                continue
            else:
                where = where[1:]
            found |= {".".join([*where, a.name]) for a in node.names} | {".".join(where)}
    return found & names


MODULES = module_names()


def test_every_module_has_its_place_in_the_layers():
    assert set(LINE) == set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_down(name):
    for other in imported(name, MODULES[name], set(MODULES)):
        assert LINE[name] < LINE[other], f"{name} imports {other}, which is not below it"


def test_the_arrows_are_seen():
    assert imported("cli", MODULES["cli"], set(MODULES)) >= {"subspace", "sandbox.build", "models"}
    assert "store" in imported("sandbox.family", MODULES["sandbox.family"], set(MODULES))
    assert "hub" in imported("checkpoint", MODULES["checkpoint"], set(MODULES))


@pytest.mark.parametrize("name", lox_kit.__all__)
def test_every_public_name_is_found(name):
    assert getattr(lox_kit, name) is not None
    assert name in dir(lox_kit)


def test_no_public_name_is_a_module_s_own():
    """`lox_kit.name` would be the function at first, and the module once something imports it."""
    assert not set(lox_kit.__all__) & {name.partition(".")[0] for name in MODULES}


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'lox_kit' has no attribute 'extrapolated'"):
        _ = lox_kit.extrapolated


IMPORT = """
import sys, time
start = time.perf_counter()
import {module}
print(time.perf_counter() - start)
print(*{{name.partition(".")[0] for name in sys.modules}})
"""


@pytest.mark.parametrize("module", ["lox_kit", "lox_kit.cli.main"])
def test_importing_is_instant(module):
    seconds, modules = run_python(IMPORT.format(module=module)).stdout.splitlines()
    assert float(seconds) < 1.0  # a tenth of that on an idle machine
    slow = {"torch", "numpy", "pandas", "matplotlib", "transformers", "trl", "peft", "safetensors"}
    assert not slow & set(modules.split())


CLI = """
import json, sys
from lox_kit.cli import main
for arguments in json.loads(sys.argv[1]):
    sys.argv[1:] = arguments
    try:
        main()
    except SystemExit as end:
        assert not end.code, arguments
print(*{name.partition(".")[0] for name in sys.modules})
"""


def modules_after(*calls):
    """Return the modules that `lox` has imported after these calls in one process."""
    done = run_python(CLI, json.dumps([[str(a) for a in call] for call in calls]))
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_the_weights_only_verbs_never_import_transformers_or_trl(pair, tmp_path):
    S, edit = tmp_path / "S.safetensors", ["-k", 3, "--alpha", 1]
    modules = modules_after(
        ["check", pair.base, pair.aligned],
        ["factor", pair.base, pair.aligned, "-o", S, "--rank", 4, "--device", "cpu"],
        ["spectrum", S, "-k", 3, "--json"],
        ["apply", S, pair.aligned, "-o", tmp_path / "lox", *edit],
        ["adapter", S, pair.aligned, "-o", tmp_path / "adapter", *edit],
        ["extrapolate", pair.base, pair.aligned, "-o", tmp_path / "one", *edit, "--device", "cpu"],
    )
    assert "torch" in modules
    assert not modules & {"transformers", "trl", "peft", "datasets", "accelerate"}
    assert weights(tmp_path / "lox").keys() == weights(pair.aligned).keys()
    assert (tmp_path / "adapter" / "adapter_config.json").exists()


def test_help_imports_no_torch():
    assert "torch" not in modules_after(["--help"], ["apply", "--help"])
