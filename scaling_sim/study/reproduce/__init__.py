"""Published results: the value as printed beside the value that this library computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from scaling_sim.errors import ConfigError
from scaling_sim.study.reproduce.kaplan_arithmetic import kaplan_arithmetic

if TYPE_CHECKING:
    import pandas as pd

PUBLISHED: Mapping[str, Callable[[], pd.DataFrame]] = MappingProxyType({"kaplan-arithmetic": kaplan_arithmetic})
"""What `reproduce` knows."""


def reproduce(name: str) -> pd.DataFrame:
    """Table of a published result: ``quantity``, ``printed``, ``ours``, ``constants``, ``remark``.

    Raises
    ------
    ConfigError
        No such result; the message lists the names.
    """
    if name not in PUBLISHED:
        raise ConfigError(
            f"no published table is called {name!r}; there are: {', '.join(PUBLISHED)}; figures from our own runs are "
            "made by reproduce_kaplan(out), or `scaling-sim reproduce kaplan --out DIR`"
        )
    return PUBLISHED[name]()
