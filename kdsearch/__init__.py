"""kdsearch: search for the best distilled student of a text classifier."""

__version__ = "0.1.0"
