"""What tests of the CuPy backend that need a card begin with."""

import os

import pytest

from scaling_sim_cupy import BACKEND


class OnACard:
    """Skips, or fails if SCALING_SIM_REQUIRE_BACKENDS names cupy, where there is none."""

    @pytest.fixture(autouse=True)
    def required(self):
        reason = BACKEND.why_unavailable()
        if reason is None:
            return
        if "cupy" in os.environ.get("SCALING_SIM_REQUIRE_BACKENDS", "").split(","):
            pytest.fail(reason)
        pytest.skip(reason)
