"""The same figures with plotly, to hover over and to turn: plain data in, a `Figure` out.

Each subject has its own module; all figures are found here, as those of matplotlib in `plots`.
"""

from .interactive_alpha import alpha_axis
from .interactive_landscape import landscape
from .interactive_rank import rank_and_r
from .interactive_spectrum import explorer
from .spectrum import explorer_data

__all__ = ["alpha_axis", "explorer", "explorer_data", "landscape", "rank_and_r"]
