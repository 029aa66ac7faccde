from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import brentq

from scaling_sim.errors import ConfigError, DataError, DesignError, LawError
from scaling_sim.laws.constants import CONSTANTS, PF_DAY, ConstantSet, constants
from scaling_sim.laws.kaplan import critical_batch, solve_loss
from scaling_sim.predict.backtest import Backtest, backtest_of
from scaling_sim.predict.crossover import crossover
from scaling_sim.predict.frontier import KaplanFrontier
from scaling_sim.predict.overfit import overfitting
from tests.predict.support import Draws, around, table

TABLE_6 = constants("kaplan-table6")
EQ_6_7 = constants("kaplan-eq6.7")
FIGURES = constants("kaplan-figures")


@pytest.mark.parametrize(
    ("constant_set", "C", "N", "D", "loss"),
    [
        (TABLE_6, 1.12e4, 1.17e12, 2.5e11, 1.668),
        (TABLE_6.variant("a", "figures", C_c_min=2.3e8), 6.1e3, 7.5e11, 2.1e11, 1.694),
        (TABLE_6.variant("b", "2C/6N", D_e=PF_DAY / 3 / 1.3e9), 1.67e4, 1.57e12, 3.1e11, 1.635),
        (FIGURES, 9.0e3, 1.00e12, 2.6e11, 1.661),
        (EQ_6_7, 1.06e5, 6.1e12, 8.1e11, 1.490),
        (EQ_6_7.variant("c", "figures", C_c_min=2.3e8), 5.9e4, 4.0e12, 7.0e11, 1.512),
        (EQ_6_7.variant("d", "Table 2", alpha_D=0.103, D_c=1.8e13), 3.3e6, 7.4e13, 2.0e12, 1.255),
        (constants("kaplan-appendix-b"), 2.5e6, 1.3e13, 5.4e12, 1.245),
    ],
)
def test_the_papers_crossing_by_each_of_its_constant_sets(
    constant_set: ConstantSet, C: float, N: float, D: float, loss: float
) -> None:
    found = crossover(constant_set)
    assert found.C.median / PF_DAY == pytest.approx(C, rel=0.02)
    assert found.N.median == pytest.approx(N, rel=0.02)
    assert found.D.median == pytest.approx(D, rel=0.03)
    assert found.loss.median == pytest.approx(loss, abs=2e-3)
    assert found.probability_none == 0


def test_printed_crossing_needs_table_6_and_equation_6_7() -> None:
    """C*, N*, L* of (6.8) follow from Table 6, D* ~ 1e12 from (6.7) only."""
    table6 = crossover(TABLE_6)
    assert 5e3 < table6.C.median / PF_DAY < 2e4
    assert 5e11 < table6.N.median < 2e12
    assert 1.60 < table6.loss.median < 1.72
    assert 1e11 < table6.D.median < 1e12
    assert 5e4 < crossover(EQ_6_7).C.median / PF_DAY < 2e5


def test_how_far_apart_the_papers_own_sets_lie() -> None:
    """Of Table 6: its 4e10 tokens alone, equation 6.7 with the exponent .26 too, Appendix B."""
    others = TABLE_6.variant("4e10", "eq 6.7", D_e=4e10), EQ_6_7, constants("kaplan-appendix-b")
    further = [crossover(one).C.median / crossover(TABLE_6).C.median for one in others]
    assert further == pytest.approx([14.9, 9.5, 220], rel=0.01)


def test_rounding_does_not_explain_the_difference() -> None:
    """All six inputs of eq. 6.7 within half of their last digit: C* stays in 5.8e4 … 1.9e5 PF-days."""
    rng = np.random.default_rng(0)
    half = {"alpha_D": 5e-4, "D_c": 5e11, "alpha_C_min": 5e-4, "C_c_min": 5e6, "D_e": 5e9, "p_D": 5e-3}
    n = 20_000
    draws = {k: v + half.get(k, 0.0) * rng.uniform(-1, 1, n) for k, v in EQ_6_7.values.items()}
    low, high = crossover(Draws("kaplan-frontier", draws)).C.interval(0.95)
    assert low / PF_DAY == pytest.approx(5.8e4, rel=0.05)
    assert high / PF_DAY == pytest.approx(1.9e5, rel=0.05)


@pytest.mark.parametrize(("constant_set", "C"), [(FIGURES, 0.43), (EQ_6_7, 3.7)])
def test_tension_starts_far_before_the_crossing(constant_set: ConstantSet, C: float) -> None:
    found = crossover(constant_set)
    assert found.tension.C.median / PF_DAY == pytest.approx(C, rel=0.02)
    assert found.tension.C.median < 1e-3 * found.C.median


@pytest.mark.parametrize("law", ["kaplan", "kaplan-floor"])
def test_appendix_b_crossing_solves_its_equation_for_every_draw(law: str) -> None:
    fit = around("kaplan-appendix-b", num=40)
    floor = {"E": np.linspace(0.2, 1.0, 40)} if law == "kaplan-floor" else {}
    fit = replace(fit, law_name=law, draws={**fit.draws, **floor})
    found = crossover(fit)
    frontier = KaplanFrontier.of(fit)
    crosses = np.isfinite(found.C.draws)
    assert crosses.sum() > 20
    point = frontier.at(np.log(found.N.draws)[:, None])
    p = fit.draws
    limit = p.get("E", 0.0) + (p["D_c"] / found.D.draws) ** p["alpha_D"]
    np.testing.assert_allclose(point.C_min[crosses, 0], found.C.draws[crosses], rtol=1e-7)
    np.testing.assert_allclose(point.D[crosses, 0], found.D.draws[crosses], rtol=1e-7)
    np.testing.assert_allclose(point.loss[crosses, 0], found.loss.draws[crosses], rtol=1e-9)
    np.testing.assert_allclose(limit[crosses], found.loss.draws[crosses], rtol=1e-9)


def test_a_floor_moves_the_loss_and_not_the_compute() -> None:
    bare, floored = constants("kaplan-table5"), dict(constants("kaplan-table5").draws)
    floored["E"] = np.array([0.5])
    a, b = crossover(bare), crossover(Draws("kaplan-floor", floored))
    assert b.C.median == pytest.approx(a.C.median)
    assert b.loss.median == pytest.approx(a.loss.median + 0.5)


def test_draws_without_a_crossing_count_as_infinite() -> None:
    p = {k: np.repeat(v, 4) for k, v in constants("kaplan-table5").draws.items()}
    p["alpha_D"] = np.array([0.095, 0.095, 0.095, 0.5])  # data never limit the last one
    found = crossover(Draws("kaplan", p))
    assert found.probability_none == 0.25
    assert np.isinf(found.C.interval(0.99)[1])
    assert np.isfinite(found.C.median)
    assert found.loss.draws[-1] == 0
    conditional = found.conditional()["C_flop"]
    assert conditional.draws.size == 3
    answer = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert answer["C_min_flop"] == answer["C_flop"]
    assert answer["C_min_pf_days"] == answer["C_pf_days"]
    assert answer["given_a_crossing"].keys() >= {"C_min_flop", "C_flop"}
    assert "twice C_min" in answer["meaning"]
    assert answer["C_flop"]["interval90"][1] == "inf"
    assert answer["given_a_crossing"]["C_flop"]["interval90"][1] == pytest.approx(found.C.median)


def test_no_draw_crosses() -> None:
    p = {**constants("kaplan-table5").draws, "alpha_D": np.array([0.5])}
    found = crossover(Draws("kaplan", p))
    assert found.probability_none == 1
    assert found.conditional() == {}
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.parametrize("name", [n for n, s in CONSTANTS.items() if s.law_name not in ("kaplan", "kaplan-frontier")])
def test_other_laws_have_none_and_say_why(name: str) -> None:
    with pytest.raises(LawError, match=r"no crossover from .* needs a joint 'kaplan' fit"):
        crossover(constants(name))


def test_elasticities_match_the_closed_form() -> None:
    """ln C* = [αC ln C_c − αD ln(D_c/D_e)]/(αC − αD·p_D) in PF-days."""
    found = crossover(TABLE_6).sensitivity().set_index("parameter")["elasticity"]
    t = TABLE_6.values
    closing = t["alpha_C_min"] - t["alpha_D"] * t["p_D"]
    assert found["C_c_min"] == pytest.approx(t["alpha_C_min"] / closing, rel=1e-6)
    assert found["D_e"] == pytest.approx(t["alpha_D"] / closing, rel=1e-6)
    assert found["D_c"] == pytest.approx(-t["alpha_D"] / closing, rel=1e-6)
    assert "N_e" not in found  # C* does not depend on it


def test_sensitivity_ranks_what_moves_the_draws() -> None:
    fit = around("kaplan-table5", sd=0.01)
    fit.draws["alpha_D"] = 0.095 * np.exp(0.1 * np.random.default_rng(5).standard_normal(2000))
    table_ = crossover(fit).sensitivity().set_index("parameter")
    assert table_["standardised"].abs().idxmax() == "alpha_D"
    assert table_["rank_correlation"].abs().idxmax() == "alpha_D"
    assert table_["rank_correlation"].abs()["alpha_D"] > 0.9


def test_elasticities_of_each_draw_are_its_slopes() -> None:
    """Moving one draw of one parameter by one per cent moves that draw's ln C* by its elasticity per cent."""
    fit = around("kaplan-appendix-b", num=30)
    before = crossover(fit)
    found = before.elasticities()
    assert found.keys() == fit.draws.keys() - {"alpha_N", "N_c"}, "the curves' own pair carries the frontier"
    for name, slopes in found.items():
        after = crossover(replace(fit, draws={**fit.draws, name: fit.draws[name] * np.exp(1e-4)}))
        moved = (np.log(after.C.draws) - np.log(before.C.draws)) / 1e-4
        np.testing.assert_allclose(moved, slopes, rtol=2e-2, atol=1e-3)


def test_shares_of_variance_are_those_of_moving_one_parameter_at_a_time() -> None:
    """With small independent deviations the variances of one parameter at a time add up to all of it."""
    fit = around("kaplan-table5", sd=0.002, num=4000)
    found = crossover(fit)
    shares = found.sensitivity().set_index("parameter")["variance_share"]
    assert shares.sum() == pytest.approx(1)
    middle = {name: np.full(4000, np.median(values)) for name, values in fit.draws.items()}
    for name in shares.index:
        alone = crossover(replace(fit, draws={**middle, name: fit.draws[name]}))
        share = np.var(np.log(alone.C.draws)) / np.var(np.log(found.C.draws))
        assert shares[name] == pytest.approx(share, abs=0.05)
    by_law = found.variance_by_law()
    assert by_law["L(D)"] == pytest.approx(shares["alpha_D"] + shares["D_c"])
    assert by_law.keys() == {"L(N)", "L(S_min)", "B_crit(L)", "L(D)"}


def test_a_pair_that_moves_along_one_law_has_no_share() -> None:
    """α_D and D_c that turn L(D) about the crossing itself leave C* where it is, however far each moves."""
    centre = crossover(constants("kaplan-table5"))
    p = {k: np.repeat(v, 500) for k, v in constants("kaplan-table5").draws.items()}
    turn = 0.01 * np.random.default_rng(2).standard_normal(500)
    p["alpha_D"] *= np.exp(turn)
    p["D_c"] = centre.D.median * np.exp(np.log(centre.loss.median) / p["alpha_D"])
    p["S_c"] *= np.exp(0.01 * np.random.default_rng(3).standard_normal(500))
    found = crossover(Draws("kaplan", p))
    alone = found.sensitivity().set_index("parameter")["standardised"]
    assert np.std(np.log(found.C.draws)) == pytest.approx(alone["S_c"], rel=0.01)
    assert abs(alone["D_c"]) > 1.5 * alone["S_c"], "what D_c would do alone"
    assert abs(found.variance_by_law()["L(D)"]) < 0.01
    assert found.variance_by_law()["L(S_min)"] == pytest.approx(1, abs=0.01)


def test_a_share_stays_finite_where_draws_do_not_cross() -> None:
    fit = around("kaplan-table5", sd=0.01, num=1000)
    fit.draws["alpha_D"][:300] *= 4
    found = crossover(fit)
    assert 0.2 < found.probability_none < 0.4
    assert sum(found.variance_by_law().values()) == pytest.approx(1)
    assert np.isnan(found.elasticities()["alpha_D"]).sum() == round(1000 * found.probability_none)


def test_exponents_of_either_sign_have_a_spread() -> None:
    """A fitted envelope may say that the best number of tokens falls with compute; that is no NaN and no warning."""
    n = 400
    draws = {k: np.repeat(v, n) for k, v in TABLE_6.draws.items()}
    draws["p_D"] = 0.2 + 0.1 * np.random.default_rng(0).standard_normal(n)
    assert np.any(draws["p_D"] < 0)
    row = crossover(Draws("kaplan-frontier", draws)).sensitivity().set_index("parameter").loc["p_D"]
    assert row["variance_share"] == pytest.approx(1)
    assert row["sd_log"] == pytest.approx(0.5, rel=0.1)


def test_tension_by_both_rules() -> None:
    """At its own point the law overfits by the threshold exactly; at the paper's, D = 5e3·N^0.74."""
    found = crossover(constants("kaplan-table5"), threshold=0.03)
    p = constants("kaplan-table5").values
    for tension in (found.tension, found.printed_tension):
        N, C = tension.N.median, tension.C.median
        D = C / (3 * N)
        if tension is found.tension:
            assert overfitting(N, D, p) == pytest.approx(0.03, rel=1e-9)
        else:
            assert pytest.approx(5e3 * N**0.74, rel=1e-9) == D
    assert found.tension.C.median < found.C.median
    assert found.to_json()["printed_tension"]["threshold"] == 0.02
    assert crossover(TABLE_6).tension is not None
    assert crossover(TABLE_6).tension.to_json() == crossover(TABLE_6).printed_tension.to_json()
    with pytest.raises(ConfigError, match="must lie between 0 and 1, got 2"):
        crossover(TABLE_6, threshold=2)


def test_recipes_that_contradict_inside_the_runs_are_refused() -> None:
    runs = table(N=[1e8, 1e9], tokens=[1e10, 1e11], loss=[3.0, 2.6], B=[5e5, 5e5], S=[2e4, 2e5])
    p = {**constants("kaplan-table5").draws, "D_c": np.array([5.4e13 * 1e6])}
    with pytest.raises(DataError, match="recipes differ: inside the runs"):
        crossover(Draws("kaplan", p, runs))
    assert crossover(Draws("kaplan", constants("kaplan-table5").draws, runs), backtest=None).probability_none == 0


def test_extrapolation_is_stated() -> None:
    found = crossover(TABLE_6)
    assert found.decades_beyond_runs.median == pytest.approx(3.05, abs=0.01)  # Fig. 1 ends at 10 PF-days
    assert found.beyond_backtest
    unknown = crossover(Draws("kaplan-frontier", TABLE_6.draws))
    assert unknown.beyond_backtest
    assert unknown.to_json()["decades_beyond_runs"] is None


def test_a_back_test_is_stated_and_so_is_its_absence() -> None:
    """As in allocations and forecasts, the runs' own one counts unless another, or none, is asked for."""
    alone = crossover(TABLE_6)
    assert all(set(row) == {"elasticity"} for row in alone.to_json()["sensitivity"].values())
    assert "variance_by_law" not in alone.to_json()
    assert alone.not_determined == "it lies 3.0 decades beyond the runs, and no back-test was made"
    assert alone.to_json()["backtested_decades"] is None
    assert alone.to_json()["backtested_decades_reason"] == "no back-test: there are no runs behind these constants"
    assert crossover(TABLE_6, backtest=None).untested == "no back-test was asked for"
    few = simulated_runs(3)
    assert crossover(few).untested == backtest_of(few) != ""
    one = np.ones(1)
    wide = np.ones((1, 5))
    made = Backtest("kaplan", one, 10 * one, one, one, wide, wide, one, one, largest=1e20)
    tested = crossover(TABLE_6, backtest=made)
    assert tested.not_determined == "it lies 3.0 decades beyond the runs, and a back-test reached 1.0"
    assert tested.to_json()["backtested_decades"] == 1.0
    assert tested.untested is None
    with pytest.raises(ConfigError, match='backtest must be a Backtest, "auto" or None'):
        crossover(TABLE_6, backtest="yes")  # type: ignore[arg-type]


def test_methods_are_checked() -> None:
    with pytest.raises(ConfigError, match="'appendix-b' or 'frontier', got 'fit'"):
        crossover(TABLE_6, method="fit")  # type: ignore[arg-type]
    with pytest.raises(LawError, match="prints fitted power laws"):
        crossover(TABLE_6, method="appendix-b")
    with pytest.raises(DesignError, match="constants come without runs"):
        crossover(constants("kaplan-table5"), method="frontier")


def simulated_runs(num_sizes: int = 9) -> Draws:
    """Noise-free curves of Kaplan's own law at sizes around the frontier, at a batch far below the critical one."""
    p = constants("kaplan-table5").values
    rows: dict[str, list[float]] = {"N": [], "tokens": [], "B": [], "S": [], "loss": []}
    ids = []
    for i, N in enumerate(np.geomspace(1e5, 1e9, num_sizes)):
        for S in np.geomspace(1e5, 3e7, 30):
            B = 2e4
            rows["N"].append(N)
            rows["B"].append(B)
            rows["S"].append(S)
            rows["tokens"].append(B * S)
            rows["loss"].append(float(solve_loss(N, B, S, p)))
            ids.append(f"run{i}")
    runs = table(**rows, run=np.array(ids), curve=np.ones(len(ids), dtype=bool))
    return Draws("kaplan", {k: np.full(50, v) for k, v in p.items()}, runs)


def test_fitted_frontier_finds_the_exponents_of_the_law_behind_the_runs() -> None:
    """The lower envelope of curves of Kaplan's law has his exponents; gaps between sizes leave a few per cent."""
    fit = simulated_runs(33)
    found = crossover(fit, method="frontier", backtest=None, seed=3)
    assert np.median(found.parameters["alpha_C_min"]) == pytest.approx(0.052, rel=0.03)
    assert np.median(found.parameters["p_N"]) == pytest.approx(0.684, rel=0.05)
    again = crossover(fit, method="frontier", backtest=None, seed=3)
    np.testing.assert_array_equal(found.C.draws, again.C.draws)


def test_fitted_frontier_of_noisy_runs_covers_the_truth() -> None:
    from scaling_sim.predict.simulate import simulate

    truth = constants("kaplan-table5")
    runs = simulate(truth, seed=1)
    fit = Draws("kaplan", {k: np.repeat(v, 200) for k, v in truth.draws.items()}, runs)
    low, high = crossover(fit, method="frontier", backtest=None).C.interval(0.9)
    assert low < crossover(truth).C.median < high


def test_too_few_runs_for_a_frontier() -> None:
    with pytest.raises(DesignError, match="at least 4 single-pass runs with a known batch, got 3"):
        crossover(simulated_runs(3), method="frontier")


def test_crossing_by_direct_root_finding() -> None:
    """Along D = 2·B_crit·S_min, minimise (1.6) numerically at each C and find where L(D) meets it."""
    p = constants("kaplan-table5").values

    def gap(log_C: float) -> float:
        sizes = np.exp(np.linspace(np.log(1e11), np.log(1e16), 4001))
        C = np.exp(log_C)
        loss = solve_loss(sizes, 1e-6, C / (6 * sizes * 1e-6), p)  # B ≪ B_crit: C = C_min
        i = int(np.argmin(loss))
        D = 2 * C / (6 * sizes[i])
        assert 0 < i < 4000
        return float(np.log(loss[i]) - p["alpha_D"] * np.log(p["D_c"] / D))

    root = brentq(gap, np.log(1e5 * PF_DAY), np.log(1e8 * PF_DAY), xtol=1e-4)
    assert np.log(crossover(constants("kaplan-table5")).C.median) == pytest.approx(root, abs=0.05)
    assert float(critical_batch(3.0, p)) == pytest.approx(1.12e6, rel=5e-3)


def test_results_read_well() -> None:
    found = crossover(around("kaplan-table5", num=300))
    frame = found.to_dataframe()
    assert set(frame.over) == {"all draws", "given a crossing"}
    assert "No crossing in" in found._repr_html_()


def test_absurd_draws_neither_warn_nor_spread() -> None:
    """An unidentified exponent makes scale constants overflow; such a draw must not touch the others."""
    p = {k: np.repeat(v, 5) for k, v in constants("kaplan-table5").draws.items()}
    p["alpha_N"][4], p["N_c"][4] = 0.002, 1e300
    found = crossover(Draws("kaplan", p))
    sane = crossover(constants("kaplan-table5"))
    assert found.C.median == pytest.approx(sane.C.median)
    assert not np.isnan(found.C.draws).any()
    assert not np.isnan(found.tension.C.draws).any()
    found.to_json()
