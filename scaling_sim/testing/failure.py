"""What a failed check raises."""

from __future__ import annotations

from scaling_sim.errors import ScalingSimError


class CheckFailed(ScalingSimError, AssertionError):
    """A law or a fitter breaks a property; the message says which, by how much, and what usually causes it.

    Attributes
    ----------
    check : str
        Name of the check.
    """

    def __init__(self, check: str, message: str) -> None:
        super().__init__(f"{check}: {message}")
        self.check = check
