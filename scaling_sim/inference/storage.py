"""Fits as NetCDF in ArviZ's layout."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scaling_sim.errors import ConfigError, DataError
from scaling_sim.inference.design import prepare
from scaling_sim.inference.diagnostics import Diagnostics
from scaling_sim.inference.point import natural_point, posterior_mode
from scaling_sim.inference.posterior import Posterior
from scaling_sim.inference.target import LogPosterior
from scaling_sim.laws.base import Coordinate, Law, Normal
from scaling_sim.laws.registry import get_law, law_names
from scaling_sim.laws.user_modules import origin
from scaling_sim.runs.table import RunTable

if TYPE_CHECKING:
    from xarray import Dataset, DataTree

FORMAT = 2
"""Of the file; raised when an old one can no longer be read as it is."""


def data_tree(fit: Posterior, *, log_likelihood: bool = True) -> DataTree:
    """Groups posterior, unconstrained_posterior, observed_data, constant_data and, if asked, log_likelihood."""
    import arviz_base

    ensembles = fit.diagnostics.num_ensembles
    chains = {name: values.reshape(ensembles, -1) for name, values in (*fit.draws.items(), *fit.noise.items())}
    names = [coordinate.name for coordinate in fit.coordinates]
    groups: dict[str, Any] = {
        "posterior": chains,
        "unconstrained_posterior": {k: fit.u[:, i].reshape(ensembles, -1) for i, k in enumerate(names)},
        "observed_data": {fit.law.response: fit.data.response},
        "constant_data": dict(fit.data.columns),
    }
    dims = {name: ["row"] for name in (fit.law.response, *fit.data.columns)}
    coords: dict[str, Any] = {"row": fit.data.run}
    if log_likelihood:
        density, units = fit.pointwise_log_likelihood()
        groups["log_likelihood"] = {fit.law.response: density.reshape(ensembles, -1, density.shape[1])}
        dims["unit"], coords["unit"] = ["unit"], units
        return _with_units(arviz_base, groups, dims, coords, fit)
    tree = arviz_base.from_dict(groups, dims=dims, coords=coords)
    tree.attrs["scaling_sim"] = json.dumps(_header(fit))
    return tree


def save(fit: Posterior, path: Path) -> Path:
    """Write the file in one go: to a temporary name beside it, then moved over."""
    from xarray import Dataset

    tree = data_tree(fit, log_likelihood=False)
    tree["runs"] = _node(_runs_dataset(fit.runs))
    tree["trace"] = _node(Dataset({"chain": (("ensemble", "step", "coordinate"), fit.chain)}))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        tree.to_netcdf(temporary, engine="h5netcdf")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def load_fit(path: str | Path) -> Posterior:
    """The posterior that `Posterior.save` wrote.

    Raises
    ------
    DataError
        The file is not a fit of ours, or of a newer format.
    ConfigError
        Its law is a user's own whose module has not been imported; the message says which it is.
    """
    import xarray

    try:
        with xarray.open_datatree(Path(path), engine="h5netcdf") as opened:
            tree = opened.load()
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"a fit must be a NetCDF file written by Posterior.save; {path} is not: {error}") from error
    if "scaling_sim" not in tree.attrs:
        raise DataError(f"a fit must be written by Posterior.save; {path} lacks its header")
    head = json.loads(tree.attrs["scaling_sim"])
    if head["format"] > FORMAT:
        raise DataError(f"{path} has format {head['format']}, this version reads up to {FORMAT}: upgrade scaling-sim")
    return _posterior(tree, head, _law(head, path))


def _law(head: dict[str, Any], path: str | Path) -> Law:
    if head["law"] not in law_names():
        module = head.get("law_module")  # code is never run because a file asks for it
        cure = (
            f"give --import {module} on the command line, or scaling_sim.import_laws({module!r}) in Python"
            if module
            else "register its class first (scaling_sim.register_law)"
        )
        raise ConfigError(f"{path} is a fit of {head['law']!r}, a law that is not known here: {cure}")
    return get_law(head["law"], **head["options"])


def _posterior(tree: DataTree, head: dict[str, Any], law: Law) -> Posterior:
    runs = _runs_table(tree["runs"].to_dataset(), head["runs"])
    data = prepare(runs, law)
    if head["format"] == 1:  # its point was the log-Huber one
        target = LogPosterior(law, data)
        mode = posterior_mode(target)[0].u[: target.num_law]
        head = {**head, "huber_point": head["point"], "point": natural_point(target, mode)}
    values = {str(name): array.values.reshape(-1) for name, array in tree["posterior"].data_vars.items()}
    ratios = {"E" if name == "log E" else name: ratio for name, ratio in head["identifiability"].items()}
    head = {**head, "identifiability": {name: ratio for name, ratio in ratios.items() if name in values}}  # not u's
    coordinates = tuple(Coordinate(name, Normal(mean, sd), meaning) for name, mean, sd, meaning in head["coordinates"])
    flat = [tree["unconstrained_posterior"][c.name].values.reshape(-1) for c in coordinates]
    return Posterior(
        law=law,
        draws={name: values[name] for name in law.parameters},
        noise={name: values[name] for name in head["noise"]},
        u=np.stack(flat, axis=1),
        diagnostics=Diagnostics(**head["diagnostics"]),
        runs=runs,
        data=data,
        dropped={reason: tuple(names) for reason, names in head["dropped"].items()},
        coordinates=coordinates,
        chain=tree["trace"]["chain"].values,
        notes=tuple(head["notes"]),
        **{name: head[name] for name in _PLAIN},
    )


_PLAIN = (
    "point",
    "huber_point",
    "parameter_diagnostics",
    "identifiability",
    "n_used",
    "roles",
    "seed",
    "centre",
    "versions",
)
"""Fields that JSON holds as they are."""


def _header(fit: Posterior) -> dict[str, Any]:
    """Everything that is not an array."""
    return {
        "format": FORMAT,
        "law": fit.law_name,
        "law_module": origin(fit.law),
        "options": fit.law.options(),
        "coordinates": [(c.name, c.prior.mean, c.prior.sd, c.meaning) for c in fit.coordinates],
        "noise": list(fit.noise),
        "diagnostics": dataclasses.asdict(fit.diagnostics),
        "dropped": dict(fit.dropped),
        "notes": fit.notes,
        "runs": {
            "source": fit.runs.source,
            "data_hash": fit.runs.data_hash,
            "simulated": fit.runs.simulated,
            "dropped": dict(fit.runs.dropped),
            "notes": fit.runs.notes,
        },
        **{name: getattr(fit, name) for name in _PLAIN},
    }


def _with_units(
    arviz_base: Any, groups: dict[str, Any], dims: dict[str, Any], coords: dict[str, Any], fit: Posterior
) -> DataTree:
    """A tree whose log likelihood has a dimension of its own: one name may not have two shapes in `from_dict`."""
    units = {"log_likelihood": groups.pop("log_likelihood")}
    tree = arviz_base.from_dict(groups, dims=dims, coords=coords)
    more = arviz_base.from_dict(units, dims={fit.law.response: dims.pop("unit")}, coords={"unit": coords["unit"]})
    tree["log_likelihood"] = more["log_likelihood"]
    tree.attrs["scaling_sim"] = json.dumps(_header(fit))
    return tree


def _node(dataset: Dataset) -> DataTree:
    from xarray import DataTree

    return DataTree(dataset)


_TABLE = ("run", "N", "D", "tokens", "C", "B", "S", "loss", "loss_error", "warmup", "decayed", "stopped", "curve")


def _runs_dataset(runs: RunTable) -> Dataset:
    """All columns of the table; extra ones are prefixed, and text unless they are numbers."""
    from xarray import Dataset

    columns = {name: ("row", _plain(getattr(runs, name))) for name in _TABLE}
    extra = {f"extra {name}".replace("/", "∕"): ("row", _plain(values)) for name, values in runs.extra.items()}
    return Dataset(columns | extra)


def _runs_table(dataset: Dataset, head: dict[str, Any]) -> RunTable:
    columns: dict[str, Any] = {name: dataset[name].values for name in _TABLE}
    columns["run"] = columns["run"].astype(np.str_)
    extra = {
        str(name)[len("extra ") :].replace("∕", "/"): dataset[name].values
        for name in dataset.data_vars
        if str(name).startswith("extra ")
    }
    dropped = {reason: tuple(names) for reason, names in head["dropped"].items()}
    return RunTable(**columns, extra=extra, **{**head, "dropped": dropped, "notes": tuple(head["notes"])})


def _plain(values: NDArray[Any]) -> NDArray[Any]:
    """Numbers as they are, everything else as text."""
    values = np.asarray(values)
    return values if values.dtype.kind in "biuf" else np.array([str(value) for value in values], dtype=object)
