"""Observer pattern: `Signal`."""
from .signal import Signal

__all__ = ("Signal",)
