"""Planes and lines through weight space, a metric on them, and how flat the ground is."""
