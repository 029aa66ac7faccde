"""Train families of small transformers, fit scaling laws with an honest posterior, predict what a larger budget buys."""

__version__ = "0.1.0"
