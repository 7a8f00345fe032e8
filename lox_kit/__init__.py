"""A workbench for low-rank extrapolation (LoX), a defence of LLM safety against fine-tuning."""

from importlib import import_module

__version__ = "0.1.0"

_WHERE = {
    "Checkpoint": "weights.checkpoint",
    "check_pair": "weights.pair",
    "SafetySubspace": "extrapolation.subspace",
    "SubspaceShare": "extrapolation.subspace",
    "UncertifiedRank": "extrapolation.subspace",
    "noise_edge": "extrapolation.subspace",
    "top_factors": "extrapolation.svd",
    "apply_lox": "extrapolation.checkpoint",
    "extrapolate": "extrapolation.checkpoint",
    "save_adapter": "extrapolation.adapter",
    "LoxDial": "extrapolation.lox",
    "random_subspace": "extrapolation.controls",
    "full_delta": "extrapolation.controls",
    "load_model": "models.load",
    "read_prompts": "models.prompts",
    "sandbox_prompts": "models.prompts",
    "measure_asr": "measures.asr",
    "rescore": "measures.asr",
    "compare": "measures.asr",
    "AsrResult": "measures.asr",
    "measure_gsm8k": "measures.gsm8k",
    "measure_over_refusal": "measures.utility",
    "measure_helpfulness": "measures.utility",
    "measure_drift": "measures.drift",
    "sandbox_rank_curve": "studies.rank",
    "ATTACKS": "attacks.run",
    "run_attack": "attacks.run",
    "find_attack": "attacks.run",
    "compare_defences": "studies",
    "attack_table": "studies",
    "epoch_curve": "studies",
    "ALIGNMENTS": "attacks.alignment",
    "align": "attacks.alignment",
    "read_set": "attacks.rows",
    "read_own": "attacks.rows",
    "read_preferences": "attacks.rows",
    "Plane": "landscape.plane",
    "Line": "landscape.plane",
    "Grid": "landscape.grid",
    "Asr": "landscape.metrics",
    "RefusalMargin": "landscape.metrics",
    "Landscape": "landscape.landscape",
    "Store": "store",
}
__all__ = ["__version__", *_WHERE]


def __getattr__(name: str):
    """Import the module that holds `name` when it is first asked for."""
    if name not in _WHERE:
        raise AttributeError(f"module 'lox_kit' has no attribute {name!r}")
    return getattr(import_module(f".{_WHERE[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
