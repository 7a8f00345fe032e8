"""Whole experiments, under one name: each is a module of its own."""

from .arms import ARMS, arm_model
from .curves import alpha_curve, ask, epoch_curve
from .defences import Comparison, compare_defences, difference
from .families import pair_of
from .table import AttackTable, attack_table

__all__ = [
    "ARMS",
    "AttackTable",
    "Comparison",
    "alpha_curve",
    "arm_model",
    "ask",
    "attack_table",
    "compare_defences",
    "difference",
    "epoch_curve",
    "pair_of",
]
