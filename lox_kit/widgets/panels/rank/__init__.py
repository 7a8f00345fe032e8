"""Rank and R."""
