"""Planes and lines through weight space, a metric on them, and how flat the ground is."""

from lox_kit import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "cuts": "cut_through measure_way nearest_cell",
        "directions": "between combine Direction lox_direction random_direction norm weights_of",
        "flat": "check_origin Flat Point Walk",
        "flatness": """
            cliff_distance difference Number random_directions scan scan_visage Scans visage
        """,
        "grid": "Axis Grid Index",
        "landscape": "evaluate Landscape Mark",
        "metrics": "Asr Loss Metric Reading RefusalMargin",
        "plane": "Line Plane project Trajectory",
    },
)
