"""Errors and warnings that a caller may want to catch.

Plain bad input raises ``ValueError`` (or a subclass here); an exit code of the command line belongs to each class.
"""

from __future__ import annotations


class ScalingSimError(Exception):
    """Base class of every error that this library raises on purpose."""

    exit_code = 1


class ConfigError(ScalingSimError, ValueError):
    """A configuration file or argument cannot be understood; the message gives the path and a suggestion."""

    exit_code = 2


class DataError(ScalingSimError, ValueError):
    """Runs or a corpus break a rule that the message names, with the rows or files concerned."""

    exit_code = 4


class DesignError(DataError):
    """The runs cannot identify the law that was asked for; the message names the parameter and what is missing."""


class LawError(ScalingSimError, ValueError):
    """A law was asked for something that its form cannot give (a crossover of a single-epoch law, say)."""

    exit_code = 4


class BackendUnavailable(ScalingSimError, RuntimeError):
    """A backend is not installed, is broken, or does not support what was asked; the message gives the cure."""

    exit_code = 2


class StoreError(ScalingSimError, RuntimeError):
    """The run store or a checkpoint cannot be read or written."""

    exit_code = 4


class ConvergenceError(ScalingSimError, RuntimeError):
    """No usable point estimate was found; the message lists what to try."""

    exit_code = 3


class ScalingSimWarning(UserWarning):
    """Base class of this library's warnings."""


class DataWarning(ScalingSimWarning):
    """Rows look wrong (units, bits for nats) but were kept; the message names them."""


class ConvergenceWarning(ScalingSimWarning):
    """A posterior did not meet the convergence rule; its numbers are not to be relied on."""


class ExtrapolationWarning(ScalingSimWarning):
    """A prediction lies beyond what the back-test could check."""


class RegimeWarning(ScalingSimWarning):
    """The smallest runs follow another law than the rest; the message names them."""


class LawWarning(ScalingSimWarning):
    """A law of an installed package was left out; the message says why."""


class BackendWarning(ScalingSimWarning):
    """A backend was skipped or a setting ignored; the message says why."""


class CheckpointWarning(ScalingSimWarning):
    """A corrupt checkpoint was set aside and an earlier one used."""
