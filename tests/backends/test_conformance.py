"""The conformance kit over every backend of ours."""

from typing import ClassVar

import pytest

from scaling_sim.engine.conformance import Conformance


class TestNumpy(Conformance):
    backend = "numpy"


class TestNumpyFloat64(Conformance):
    backend = "numpy"
    precision = "float64"
