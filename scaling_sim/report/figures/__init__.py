"""Figures of a report, each ``figure_NAME(data) -> ReportFigure`` (a matplotlib ``Figure`` with ``.to_dataframe()``).

Public as ``scaling_sim.plot``. A figure whose data do not exist raises `NothingToShow`, which says what is missing.
"""

from scaling_sim.report.figures.adjusted import figure_adjusted as figure_adjusted
from scaling_sim.report.figures.canvas import NothingToShow as NothingToShow
from scaling_sim.report.figures.canvas import ReportFigure as ReportFigure
from scaling_sim.report.figures.checks import figure_predictive_check as figure_predictive_check
from scaling_sim.report.figures.checks import figure_residuals as figure_residuals
from scaling_sim.report.figures.definitions import figure_definitions as figure_definitions
from scaling_sim.report.figures.design import figure_design as figure_design
from scaling_sim.report.figures.final import figure_allocation as figure_allocation
from scaling_sim.report.figures.final import figure_final_fit as figure_final_fit
from scaling_sim.report.figures.forecasts import figure_efficiency as figure_efficiency
from scaling_sim.report.figures.forecasts import figure_forecast as figure_forecast
from scaling_sim.report.figures.forecasts import figure_offsets as figure_offsets
from scaling_sim.report.figures.frontier import figure_best_size as figure_best_size
from scaling_sim.report.figures.frontier import figure_crossover as figure_crossover
from scaling_sim.report.figures.frontier import figure_slices as figure_slices
from scaling_sim.report.figures.holdout import figure_backtest as figure_backtest
from scaling_sim.report.figures.isoflop import figure_isoflop as figure_isoflop
from scaling_sim.report.figures.known import figure_known as figure_known
from scaling_sim.report.figures.laws import figure_overfitting as figure_overfitting
from scaling_sim.report.figures.laws import figure_power_laws as figure_power_laws
from scaling_sim.report.figures.laws import figure_two_variables as figure_two_variables
from scaling_sim.report.figures.posterior import figure_corner as figure_corner
from scaling_sim.report.figures.posterior import figure_traces as figure_traces
from scaling_sim.report.figures.svg import to_png as to_png
from scaling_sim.report.figures.svg import to_svg as to_svg
from scaling_sim.report.figures.training import figure_batch_sweep as figure_batch_sweep
from scaling_sim.report.figures.training import figure_critical_batch as figure_critical_batch
from scaling_sim.report.figures.training import figure_learning_curves as figure_learning_curves
from scaling_sim.report.figures.valley import figure_bowls as figure_bowls
from scaling_sim.report.figures.valley import figure_valley as figure_valley
from scaling_sim.report.figures.watching import figure_observed as figure_observed
from scaling_sim.report.figures.watching import figure_recipes as figure_recipes
