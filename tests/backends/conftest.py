"""What tests of several backends share."""

import pytest


@pytest.fixture
def with_triton(monkeypatch):
    """Plans are made as on a machine that has Triton, a safe one."""
    from scaling_sim_torch import plan

    monkeypatch.setattr(plan, "_why_no_kernels", lambda: None)
    monkeypatch.setattr(plan, "_why_not_safe", lambda: None)
