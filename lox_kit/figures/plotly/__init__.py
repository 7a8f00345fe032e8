"""The same figures with plotly, to hover over and to turn: plain data in, a `Figure` out.

Each subject has its own module; all figures are found here, as those of matplotlib in `plots`.
"""

from lox_kit.extrapolation.spectrum import explorer_data

from .alpha import alpha_axis
from .landscape import landscape
from .rank import rank_and_r
from .spectrum import explorer

__all__ = ["alpha_axis", "explorer", "explorer_data", "landscape", "rank_and_r"]
