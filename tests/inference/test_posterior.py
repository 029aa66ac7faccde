from __future__ import annotations

import contextlib
import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from scaling_sim.errors import ConvergenceWarning, DataError, DesignError
from scaling_sim.inference import Posterior, fit, load_fit, point_fit
from scaling_sim.inference.design import allowed_laws
from scaling_sim.inference.diagnostics import parameter_diagnostics
from scaling_sim.inference.point import posterior_mode
from scaling_sim.inference.target import LogPosterior
from scaling_sim.laws import get_law
from tests.inference.support import KAPLAN, chinchilla, epoch, joint, table


@pytest.fixture(scope="module")
def fitted() -> Posterior:
    return fit(chinchilla(0.34, 0.28, size=40), seed=1)


def inside(posterior: Posterior, truth: dict[str, float]) -> list[str]:
    """Names of the parameters whose 90 % interval does not hold the truth."""
    table = posterior.summary()
    return [name for name, value in truth.items() if not table.lo90[name] <= value <= table.hi90[name]]


def test_a_posterior_converges_and_says_so(fitted: Posterior) -> None:
    assert fitted.converged
    assert fitted.diagnostics.verdict.startswith("converged")
    assert fitted.diagnostics.min_ess >= 1000
    assert fitted.diagnostics.max_r_hat < 1.01
    assert set(fitted.diagnostics.tail_ess) == {*fitted.diagnostics.ess, *fitted.draws}
    assert min(fitted.diagnostics.tail_ess.values()) >= 1000
    assert 1000 <= len(fitted.draws["alpha"]) <= 4000
    assert set(fitted.noise) == {"sigma", "nu"}
    assert (fitted.n_used, fitted.n_dropped, fitted.roles) == (40, 0, {"final": 40})
    assert fitted.chain.shape[0] == 4
    assert (fitted.n_rows, fitted.used) == (40, "40 rows")
    columns = ["median", "lo50", "hi50", "lo90", "hi90", "ess", "mcse", "r_hat", "sd_ratio"]
    assert list(fitted.summary().columns) == columns


def test_draws_and_coordinates_agree(fitted: Posterior) -> None:
    back = fitted.law.from_parameters(fitted.draws, fitted.centre)
    np.testing.assert_allclose(back, fitted.u[:, :5], atol=1e-9)


def test_the_point_is_the_mode_and_the_huber_point_stands_beside_it(fitted: Posterior) -> None:
    mode, huber = (point_fit(fitted.runs, "chinchilla", objective) for objective in ("posterior", "huber"))
    assert fitted.point == pytest.approx(mode.parameters)
    assert fitted.huber_point == pytest.approx(huber.parameters)
    assert fitted.point != pytest.approx(fitted.huber_point, rel=1e-4)
    entry = fitted.to_json()["alpha"]
    assert (entry["point"], entry["huber_point"]) == (fitted.point["alpha"], fitted.huber_point["alpha"])
    target = LogPosterior(fitted.law, fitted.data)
    at_mode = fitted.law.from_parameters(fitted.point, fitted.centre)[0]
    best = fitted.u[np.argmax(target(fitted.u))]
    assert target(np.append(at_mode, point_noise(target))[None])[0] > target(best[None])[0] - 0.01


def point_noise(target: LogPosterior) -> np.ndarray:
    """Noise coordinates of the mode."""
    return posterior_mode(target)[0].u[target.num_law :]


def test_correlated_curves_leave_the_point_within_its_interval() -> None:
    """Curves: neighbours err together, which the Huber point does not know."""
    found = fit(joint(seed=2), "kaplan-ns", seed=0, min_ess=400)
    table = found.summary()
    for name, value in found.point.items():
        assert table.lo90[name] <= value <= table.hi90[name], name


def test_a_fit_of_the_first_format_is_read(fitted: Posterior, tmp_path: Path) -> None:
    """Its ``point`` was the log-Huber one, and there was no other."""
    path = fitted.save(tmp_path / "new.nc")
    import xarray

    with xarray.open_datatree(path, engine="h5netcdf") as opened:
        tree = opened.load()
    head = json.loads(tree.attrs["scaling_sim"])
    head["point"], head["format"] = head.pop("huber_point"), 1
    head["identifiability"] = {"log_A_E": 0.9, "alpha": 0.1, "log E": 0.8}  # later ones name parameters only
    tree.attrs["scaling_sim"] = json.dumps(head)
    tree.to_netcdf(tmp_path / "old.nc", engine="h5netcdf")
    old = load_fit(tmp_path / "old.nc")
    assert old.huber_point == fitted.huber_point
    assert old.point == pytest.approx(fitted.point)
    assert (old.identifiability, old.not_identified) == ({"alpha": 0.1, "E": 0.8}, ("E",))


def test_a_saved_fit_is_the_same_fit(fitted: Posterior, tmp_path: Path) -> None:
    again = load_fit(fitted.save(tmp_path / "folder" / "fit.nc"))
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["fit.nc"]
    for name in fitted.draws:
        np.testing.assert_array_equal(again.draws[name], fitted.draws[name])
    np.testing.assert_array_equal(again.u, fitted.u)
    np.testing.assert_array_equal(again.log_prediction(), fitted.log_prediction())
    assert again.summary().equals(fitted.summary())
    assert again.diagnostics == fitted.diagnostics
    assert again.coordinates == fitted.coordinates
    assert again.runs.data_hash == fitted.runs.data_hash
    for name in (
        "centre",
        "seed",
        "versions",
        "notes",
        "dropped",
        "identifiability",
        "roles",
        "point",
        "huber_point",
        "n_used",
    ):
        assert getattr(again, name) == getattr(fitted, name), name


def test_plain_arviz_opens_a_saved_fit(fitted: Posterior, tmp_path: Path) -> None:
    path = fitted.save(tmp_path / "fit.nc")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ArviZ announces its own changes
        import arviz

        tree = arviz.from_netcdf(str(path))
    values = tree["posterior"]["alpha"]
    assert values.dims == ("chain", "draw")
    np.testing.assert_array_equal(values.values.ravel(), fitted.draws["alpha"])


def test_files_that_are_not_fits_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.nc").write_text("not a fit")
    with pytest.raises(DataError, match="must be a NetCDF file written by"):
        load_fit(tmp_path / "x.nc")
    with pytest.raises(DataError, match="must be a NetCDF file written by"):
        load_fit(tmp_path / "absent.nc")


def test_too_few_steps_are_not_converged() -> None:
    with pytest.warns(ConvergenceWarning, match="raise max_steps"):
        short = fit(chinchilla(0.34, 0.28, size=20), max_steps=100)
    assert not short.converged
    assert short.diagnostics.verdict.startswith("not converged")


@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 0.25), (0.2, 0.6)])
def test_simulated_sweeps_are_recovered(alpha: float, beta: float) -> None:
    found = fit(chinchilla(alpha, beta, seed=3), seed=0)
    assert found.converged
    assert inside(found, {"alpha": alpha, "beta": beta}) == []


@pytest.mark.slow
def test_epoch_245_gives_the_published_answer_with_no_point_dropped(shared_data: Path) -> None:
    found = fit(epoch(shared_data), seed=0)
    table = found.summary()
    assert (found.converged, found.n_used, found.n_dropped) == (True, 245, 0)
    assert 0.32 < table["median"]["alpha"] < 0.37
    assert 0.33 < table["median"]["beta"] < 0.42
    assert table["median"]["E"] == pytest.approx(1.815, abs=0.01)
    assert found.diagnostics.min_ess >= 1000
    assert found.diagnostics.max_r_hat < 1.01
    assert max(found.identifiability["alpha"], found.identifiability["beta"]) < 0.3
    assert found.not_identified == ()


@pytest.mark.slow
@pytest.mark.parametrize("law", ["kaplan"])
def test_the_joint_system_is_recovered_from_a_simulated_study(law: str) -> None:
    found = fit(joint(), law, seed=0)
    assert found.converged
    assert found.roles == {"curve": 224, "stopped": 15}
    assert inside(found, KAPLAN) == []
    assert {"tau_curve", "ell_curve", "sigma_stopped"} <= set(found.noise)


@pytest.mark.slow
def test_a_single_batch_leaves_the_critical_batch_to_its_prior() -> None:
    runs = joint()
    found = fit(runs.select(runs.stopped | (runs.B == 4096), "other batches"), "kaplan", seed=0)
    assert "alpha_B" in found.not_identified
    assert any("only one batch" in note for note in found.notes)
    assert any("not identified by these runs" in note and "alpha_B" in note for note in found.notes)


@pytest.mark.filterwarnings("ignore::scaling_sim.errors.ConvergenceWarning")
def test_scales_that_the_data_leave_free_raise_nothing(tmp_path: Path) -> None:
    """A loss that hardly depends on N or D: N_c and D_c run from 0 to ∞, beyond the range of floats."""
    rng = np.random.default_rng(0)
    N, D = np.repeat(np.geomspace(1e4, 1e6, 4), 6), np.tile(np.geomspace(1e6, 1e8, 6), 4)
    loss = 3.0 * (N * D / 1e12) ** -0.002 * np.exp(rng.normal(0, 0.02, len(N)))
    runs = table(N=N, D=D, tokens=D, loss=loss, stopped=np.arange(len(N)) >= 12)
    fitted = []
    for law in allowed_laws(runs):
        with contextlib.suppress(DesignError):  # too few rows in its role
            found = fit(runs, law, max_steps=200)
            assert load_fit(found.save(tmp_path / f"{law}.nc")).summary().equals(found.summary())
            json.dumps(found.to_json(), allow_nan=False)
            fitted.append(law)
    assert {"power-d", "kaplan-nd", "chinchilla"} <= set(fitted)


@pytest.mark.parametrize("ends", [(-900.0, 900.0), (800.0, 900.0), (-900.0, -800.0)])
def test_constants_beyond_the_range_of_floats_are_diagnosed(ends: tuple[float, float]) -> None:
    """L = 1 at the centre gives N_c = exp(u/α): with u/α in ±900 it is 0 or ∞."""
    rng = np.random.default_rng(1)
    chain = np.stack([rng.uniform(*ends, (4, 50, 32)), np.zeros((4, 50, 32))], axis=-1)
    centre, law = {"log_N": 0.0, "log_loss": 0.0}, get_law("power-n")
    found = parameter_diagnostics(chain, lambda u: law.to_parameters(u, centre))
    assert 0 < found["N_c"]["ess"] <= 4 * 50 * 32
    assert np.isnan(found["N_c"]["mcse"]) == (ends[0] > 0)  # the median itself is ∞
