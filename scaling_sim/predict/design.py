"""Which runs to buy next, so that a target (N* at a budget, a loss, C*) becomes surer.

The law and its misfit (`scaling_sim.predict.discrepancy`) say what each run would tell about the target (`outlook`)
and what error the answer would have (`criteria`); a search over lists of runs within the budget (`search`) finds the
one that leaves the least. The misfit matters: if the law were true, many tiny runs in far corners would pin it down,
and where it is not, those corners mislead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from scaling_sim.config import config_hash
from scaling_sim.errors import ConfigError, ConvergenceError, DesignError, LawError
from scaling_sim.laws.registry import get_law
from scaling_sim.predict.candidates import Candidate, Constraints, default_candidates
from scaling_sim.predict.criteria import Criterion, FitError, PosteriorVariance
from scaling_sim.predict.discrepancy import SCHEME, grid, mixture, pose
from scaling_sim.predict.joint import world_by_draws
from scaling_sim.predict.outlook import outlooks
from scaling_sim.predict.quantity import Quantity
from scaling_sim.predict.search import Rules, Search
from scaling_sim.predict.source import Fit, head
from scaling_sim.predict.targets import Target, best_size

if TYPE_CHECKING:
    import pandas as pd

MAX_RUNS = 24
MAX_COPIES = 1
"""Seeds of one run: another run nearby measures as much, and shows where the law is wrong too."""
LOSS_SCHEME = replace(SCHEME, amplitude=(0.02, 0.7))
"""The misfit that designs for a loss reckon with: what the runs show of it, under a weaker prior than forecasts."""
SIZE_MISFIT = 0.01
"""The same for N*: its sd in ln loss, whatever the runs show.

What they show is mostly how far the smallest of them are off. N* reads the slope of the misfit where the valley of the
loss is flat, and so large a slope is not what back-tests of N* find: Hoffmann et al.'s runs show a misfit of .06 to .1,
which would leave N* at 1e24 FLOP unknown by a factor of 50.

Both were chosen among a few on simulated truths; tests/predict/test_design_proof.py says what they reach on others.
"""


@dataclass(frozen=True)
class Purchase:
    """A run to buy, and the error of the target (in its scale) expected before and after it is made."""

    candidate: Candidate
    sd_before: float
    sd_after: float


@dataclass(frozen=True)
class PlannedRun:
    """One run to make, by name: the same run of the same seed has the same name in every plan."""

    run: str
    candidate: Candidate
    seed: int

    def values(self) -> dict[str, Any]:
        """Name, kind, sizes, seed and cost; None where the kind of run leaves it open."""
        c = self.candidate
        return {
            "run": self.run,
            "kind": c.kind,
            "N": c.N,
            "tokens": c.tokens,
            "D": c.D,
            "B": c.B,
            "S": c.S,
            "seed": self.seed,
            "cost_flop": c.cost,
        }


@dataclass(frozen=True)
class Design:
    """Runs in the order in which to make them.

    ``sd_before`` and ``sd_after`` are expected errors, root mean square over posterior and misfit: of a forecast its
    posterior sd, of N* that of the N* which `allocate` will give. They are in the target's ``scale``: "log" (relative)
    or, for a target with infinite draws, "normal score of its rank".
    """

    target: str
    scale: str
    purchases: tuple[Purchase, ...]
    sd_before: float
    budget: float
    header: dict[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def sd_after(self) -> float:
        """Expected error of the target once all runs are made."""
        return self.purchases[-1].sd_after if self.purchases else self.sd_before

    @property
    def cost(self) -> float:
        """FLOP of all runs."""
        return sum(p.candidate.cost for p in self.purchases)

    def runs(self) -> tuple[PlannedRun, ...]:
        """Every run by name; copies differ in their seed."""
        seen = Counter[Candidate]()
        planned = []
        for purchase in self.purchases:
            c = purchase.candidate
            seen[c] += 1
            seed = seen[c] - 1
            number = config_hash(
                c.kind, *(f"{x:.6g}" if x else x for x in (c.N, c.tokens, c.D, c.B, c.S)), seed, length=8
            )
            planned.append(PlannedRun(f"{c.kind}-{number}", c, seed))
        return tuple(planned)

    def to_dataframe(self) -> pd.DataFrame:
        """One row per different run: how often to make it, kind, N, tokens, D, B, S, cost, share of the budget, sd.

        Rows are in the order in which the first copies are to be made; ``target_sd_before`` is the target's error
        before the first copy, ``target_sd_after`` that after the row's runs and all rows above.
        """
        import pandas as pd

        count = Counter(p.candidate for p in self.purchases)
        first = {p.candidate: p for p in reversed(self.purchases)}
        last = {p.candidate: p for p in self.purchases}
        rows = [
            {
                "count": count[c],
                "kind": c.kind,
                "N_parameters": c.N,
                "tokens": c.tokens,
                "D_tokens": c.D,
                "B_tokens": c.B,
                "S_steps": c.S,
                "cost_flop": count[c] * c.cost,
                "budget_share": count[c] * c.cost / self.budget,
                "target_sd_before": first[c].sd_before,
                "target_sd_after": last[c].sd_after,
            }
            for c in dict.fromkeys(p.candidate for p in self.purchases)
        ]
        return pd.DataFrame(rows)

    def to_json(self) -> dict[str, Any]:
        """The runs, their cost in FLOP and the target's sd before and after."""
        table = self.to_dataframe().astype(object)
        return {
            **self.header,
            "target": self.target,
            "scale": self.scale,
            "sd_before": self.sd_before,
            "sd_after": self.sd_after,
            "budget_flop": self.budget,
            "cost_flop": self.cost,
            "num_runs": len(self.purchases),
            "runs": table.where(table.notna(), None).to_dict(orient="records"),
            "notes": list(self.notes),
        }

    def _repr_html_(self) -> str:
        return str(self.to_dataframe().to_html(index=False, float_format=lambda x: f"{x:.4g}"))


def design(
    fit: Fit,
    target: Target | Quantity | None = None,
    *,
    budget: float,
    compute: float | None = None,
    candidates: Sequence[Candidate] | None = None,
    constraints: Constraints | None = None,
    noise: float | None = None,
    misfit: bool = True,
    max_runs: int = MAX_RUNS,
) -> Design:
    """Return the runs within ``budget`` that leave the least error of a target.

    Parameters
    ----------
    fit : Posterior
    target : Target or Quantity, optional
        What is to become surer: ``best_size(1e22)``, ``loss_of(N=1e9, tokens=2e10)`` or ``crossing()`` of
        `scaling_sim.predict.targets`; or the draws of any prediction by the same fit, for which the law is then taken
        as true.
    budget : float
        FLOP to spend on the next runs.
    compute : float, optional
        In place of ``target``: ``best_size(compute)``.
    candidates : sequence of Candidate, optional
        Runs to choose from. Default: about 200 of the kinds that the law reads, within ``constraints``.
    constraints : Constraints, optional
        Sizes that can be built, the dearest run, the batch, tokens per parameter, tokens that there are.
    noise : float, optional
        Sd of ln loss of one measurement; default: the fit's.
    misfit : bool
        Reckon with a law that is wrong by as much as its own runs show; never for the crossover, whose posterior is
        that of the parameters.
    max_runs : int
        Most runs, copies included.

    Raises
    ------
    ConfigError
        The budget pays for no run, or the target is of another fit.
    """
    if (target is None) == (compute is None):
        raise ConfigError("design needs a target (draws of a prediction) or compute= (N* at that compute), one of them")
    if not (np.isfinite(budget) and budget > 0):
        raise ConfigError(f"budget must be positive and finite, got {budget}")
    if max_runs < 1:
        raise ConfigError(f"max_runs must be at least 1, got {max_runs}")
    chosen = best_size(compute) if compute is not None else target
    assert chosen is not None
    pool = list(default_candidates(fit, budget, constraints) if candidates is None else candidates)
    criterion, scale, notes = _criterion(fit, chosen, pool, noise, misfit)
    search = Search(criterion, np.array([c.cost for c in pool]), Rules(budget, max_runs, MAX_COPIES))
    order = search.best()
    sds = [search.error(order[:k]) for k in range(len(order) + 1)]
    bought = tuple(Purchase(pool[i], *sds[k : k + 2]) for k, i in enumerate(order))
    return Design(chosen.name, scale, bought, sds[0], float(budget), head(fit), notes)


def _criterion(
    fit: Fit, target: Target | Quantity, pool: Sequence[Candidate], noise: float | None, misfit: bool
) -> tuple[Criterion, str, tuple[str, ...]]:
    """What lists of runs are judged by, the scale of the target, and a note on what is taken for true."""
    if isinstance(target, Target) and target.kind != "crossover" and misfit:
        try:
            return _with_misfit(fit, target, pool, noise), "log", ()
        except (DesignError, LawError, ConvergenceError) as error:
            why = (f"the law is taken as true: {error}",)
    else:
        why = ("the law is taken as true",)
    draws = (target.quantity(fit) if isinstance(target, Target) else target).draws
    if len(draws) != len(next(iter(fit.draws.values()))):
        raise ConfigError("the target must come from this fit: it has another number of draws")
    world = world_by_draws(fit, draws, pool, noise)
    return PosteriorVariance([world]), world.scale, why


def _with_misfit(fit: Fit, target: Target, pool: Sequence[Candidate], noise: float | None) -> Criterion:
    """The error that `forecast` or `allocate` will have: the one reckons with a misfit, the other does not."""
    runs = getattr(fit, "runs", None)
    if runs is None:
        raise DesignError("there are no runs behind these constants")
    scheme = LOSS_SCHEME if target.kind == "loss" else SCHEME
    problem, mode = pose(runs, getattr(fit, "law", None) or get_law(fit.law_name), scheme)
    model = mixture(problem, grid(problem, mode))
    views = outlooks(fit, problem, model, target, pool, noise)
    if not views:
        raise ConvergenceError("no draw gives the target a value")
    if target.kind == "loss":
        return PosteriorVariance([view.world() for view in views])
    return FitError([replace(view, amplitude=SIZE_MISFIT) for view in views])
