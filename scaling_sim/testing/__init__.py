"""Checks for a user's own law or fitter, and Hypothesis strategies for laws, tables and sweeps.

>>> from scaling_sim.testing import check_law
>>> check_law("chinchilla")[0]
'names'

The strategies need Hypothesis (``pip install 'scaling-sim[test]'``); the checks do not.
"""

from scaling_sim.testing.calibration import Calibration as Calibration
from scaling_sim.testing.calibration import calibrate as calibrate
from scaling_sim.testing.failure import CheckFailed as CheckFailed
from scaling_sim.testing.fitters import check_fitter as check_fitter
from scaling_sim.testing.laws import check_law as check_law
from scaling_sim.testing.strategies import law_coordinates as law_coordinates
from scaling_sim.testing.strategies import law_parameters as law_parameters
from scaling_sim.testing.strategies import run_tables as run_tables
from scaling_sim.testing.strategies import sweeps as sweeps
from scaling_sim.testing.tables import permuted as permuted
from scaling_sim.testing.tables import representative_table as representative_table
from scaling_sim.testing.tables import rescaled as rescaled
from scaling_sim.testing.truths import Truth as Truth
from scaling_sim.testing.truths import Truths as Truths
