"""Errors that a caller may want to catch; everything else raises the standard ones."""

__all__ = ["BIFError", "DivergenceError", "StoreError"]


class BIFError(Exception):
    """Base class of the errors that ppl_bif raises about a run rather than about an argument."""


class DivergenceError(BIFError):
    """Every chain left the neighbourhood of the trained weights; the message suggests a step."""


class StoreError(BIFError):
    """A store on disk is missing, unfinished, unreadable or belongs to another run."""
