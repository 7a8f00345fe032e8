"""A workbench for low-rank extrapolation (LoX), a defence of LLM safety against fine-tuning.

The rooms, each importing only from those above it:

- `sandbox`: the potion school, a made-up world, as words and rows
- `smol`: the real small model: where it comes from
- `weights`: checkpoints on disk
- `extrapolation`: the safety subspace of a pair, and LoX as dial, checkpoint and adapter
- `models`: a language model in memory, and what it answers
- `judges`: who says whether an answer complied
- `measures`: how safe a model is and what that costs it
- `attacks`: fine-tuning
- `landscape`: planes and lines through weight space, and how flat the ground is
- `studies`: whole experiments
- `figures`: plain data in, figure out; `figures.plotly` for the screen
- `reports`: the figures, table and caption of a study, as files
- `widgets`: the panels in JupyterLab
- `course`: the checks of the lessons
- `cli`: the `lox` command

What a notebook uses most is found here as well; everything else in its room.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__version__ = "0.1.0"


def attach(
    package: str, where: Mapping[str, str]
) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__all__`, `__getattr__` and `__dir__` of a package, so that importing it is instant.

    Parameters
    ----------
    package : str
        `__name__` of the package.
    where : mapping of module to names
        The names that each module of the package gives away, in one string. A module without names
        is given away itself; the others are found as attributes as well.
    """
    home = {name: module for module, given in where.items() for name in given.split() or [module]}
    names = sorted(home)

    def find(name: str) -> Any:
        if name not in home and name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = import_module(f"{package}.{home.get(name, name)}")
        return module if name in where else getattr(module, name)

    return names, find, lambda: sorted({*names, *where})


__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "weights": "Checkpoint check_pair",
        "extrapolation": """
            LoxDial SafetySubspace UncertifiedRank apply_lox bottom_subspace direction_tokens
            energy_map_data explorer_data extrapolate full_delta noise_edge random_subspace
            save_adapter spectrum_data top_factors
        """,
        "models": "load_model read_prompts sandbox_prompts smol_prompts",
        "measures": """
            AsrResult compare measure_asr measure_drift measure_gsm8k measure_helpfulness
            measure_over_refusal rescore
        """,
        "attacks": """
            ALIGNMENTS ATTACKS align find_attack read_preferences read_training_rows run_attack
        """,
        "landscape": "Asr Grid Landscape Line Loss Plane RefusalMargin",
        "studies": "attack_table compare_defences epoch_curve world_rank_curve",
        "store": "Store",
        "sandbox": "",
        "smol": "",
        "judges": "",
        "figures": "",
        "reports": "",
        "widgets": "",
        "course": "",
        "cli": "",
    },
)
__all__.append("__version__")
