"""Train PyTorch networks that are too large for the memory at hand, under a byte budget that holds."""

from .errors import BudgetError, OutsizeError

__version__ = "0.1.0"
__all__ = ["BudgetError", "OutsizeError", "__version__"]
