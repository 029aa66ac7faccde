"""Every system of Kaplan et al. 2020 as our own runs show it: ``reproduce_kaplan(out)``.

A system is a function ``(data) -> Finding`` in a module of this package and a line in `SYSTEMS`. What it cannot compute
it says by raising an error of `scaling_sim.errors` or ``NothingToShow``; the finding then tells the reader.
"""

from __future__ import annotations

from scaling_sim.study.reproduce.kaplan.data import Data as Data
from scaling_sim.study.reproduce.kaplan.finding import Finding as Finding
from scaling_sim.study.reproduce.kaplan.finding import Row as Row
from scaling_sim.study.reproduce.kaplan.making import SYSTEMS as SYSTEMS
from scaling_sim.study.reproduce.kaplan.making import System as System
from scaling_sim.study.reproduce.kaplan.making import find as find
from scaling_sim.study.reproduce.kaplan.making import reproduce_kaplan as reproduce_kaplan
