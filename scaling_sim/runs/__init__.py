"""Training runs: their records, the store that keeps them, and tables of anyone's runs for a fit."""

from scaling_sim.runs.record import CurvePoint as CurvePoint
from scaling_sim.runs.record import RunConfig as RunConfig
from scaling_sim.runs.record import RunRecord as RunRecord
from scaling_sim.runs.store import RunStore as RunStore
from scaling_sim.runs.table import RunTable as RunTable
from scaling_sim.runs.table import concat as concat
from scaling_sim.runs.table import parse_columns as parse_columns
from scaling_sim.runs.table import read_runs as read_runs
from scaling_sim.runs.table import table_from_records as table_from_records
