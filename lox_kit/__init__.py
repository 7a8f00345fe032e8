"""A workbench for low-rank extrapolation (LoX), a defence of LLM safety against fine-tuning."""

from importlib import import_module

__version__ = "0.1.0"

_WHERE = {
    "Checkpoint": "checkpoint",
    "check_pair": "pair",
    "SafetySubspace": "subspace",
    "SubspaceShare": "subspace",
    "UncertifiedRank": "subspace",
    "noise_edge": "subspace",
    "top_factors": "svd",
    "apply_lox": "lox_checkpoint",
    "extrapolate": "lox_checkpoint",
    "save_adapter": "adapter",
    "LoxDial": "lox",
    "random_subspace": "controls",
    "full_delta": "controls",
    "load_model": "models",
    "read_prompts": "prompts",
    "sandbox_prompts": "prompts",
    "measure_asr": "safety",
    "rescore": "safety",
    "compare": "safety",
    "AsrResult": "safety",
    "measure_gsm8k": "gsm8k",
    "measure_over_refusal": "utility",
    "measure_helpfulness": "utility",
    "measure_drift": "drift",
    "sandbox_rank_curve": "rank_curve",
    "ATTACKS": "attacks",
    "run_attack": "attacks",
    "find_attack": "attacks",
    "compare_defences": "studies",
    "attack_table": "studies",
    "epoch_curve": "studies",
    "ALIGNMENTS": "alignment",
    "align": "alignment",
    "read_set": "attack_data",
    "read_own": "attack_data",
    "read_preferences": "attack_data",
    "Plane": "plane",
    "Line": "plane",
    "Grid": "grid",
    "Asr": "metrics",
    "RefusalMargin": "metrics",
    "Landscape": "landscape",
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
