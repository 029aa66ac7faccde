"""What a list of runs is worth: the expected error of the answer that will be given once they are made.

The answer decides. A forecast knows the misfit of its law, so that its error is the target's posterior variance
(`PosteriorVariance`; Chaloner & Verdinelli 1995, c-optimality). `allocate` takes N* from the law alone: its error is
that of a fitted law which the truth does not quite follow (`FitError`; Box & Draper 1959: variance plus squared bias).

All is linear and Gaussian about each of a few draws (`outlook`); arrays are stacked over those, (w, …).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from scaling_sim.predict.joint import World
from scaling_sim.predict.outlook import Outlook
from scaling_sim.predict.source import Array

Places = NDArray[np.int64]


class Criterion(Protocol):
    """Mean squared errors of the target by draw, for lists of places in the pool of runs."""

    def error(self, chosen: list[int]) -> Array:
        """(w,) once these runs are made."""
        ...

    def with_one_more(self, chosen: list[int]) -> Array:
        """(w, n_pool) once these and one further run are made."""
        ...


class PosteriorVariance:
    """Var(t | runs): measuring y with noise R removes cov(t, y)·(Cov(y) + R)⁻¹·cov(y, t), whatever comes out."""

    def __init__(self, worlds: Sequence[World]) -> None:
        self._prior = np.stack([world.covariance for world in worlds])
        self._noise = [np.stack(each) for each in zip(*(world.noise for world in worlds), strict=True)]
        self._blocks = blocks_of([noise.shape[-1] for noise in self._noise], first=1)

    def error(self, chosen: list[int]) -> Array:
        """Posterior variances."""
        removed = self._removed(chosen)
        return np.asarray(self._prior[:, 0, 0] - np.einsum("wk,wk->w", removed[1][:, :, 0], removed[0][:, :, 0]))

    def with_one_more(self, chosen: list[int]) -> Array:
        """Only the blocks on the diagonal of the posterior covariance are needed."""
        gain, cross = self._removed(chosen)
        to_target = self._prior[:, 0] - np.einsum("wk,wkn->wn", cross[:, :, 0], gain)
        found = np.empty((len(self._prior), len(self._blocks)))
        for mine, at in groups_of(self._blocks):
            inner = self._prior[:, at[:, :, None], at[:, None, :]] - np.einsum(
                "wkri,wkrj->wrij", cross[:, :, at], gain[:, :, at], optimize=True
            )
            inner += np.stack([self._noise[i] for i in mine.tolist()], axis=1)
            first = to_target[:, at]
            removed = np.einsum("wri,wri->wr", first, np.linalg.solve(inner, first[..., None])[..., 0])
            found[:, mine] = to_target[:, :1] - removed
        return found

    def _removed(self, chosen: list[int]) -> tuple[Array, Array]:
        """(Cov(made) + noise)⁻¹·Cov(made, all) and Cov(made, all); copies of a run have noise of their own."""
        at = np.concatenate([np.empty(0, dtype=np.int64), *(self._blocks[i] for i in chosen)])
        cross = self._prior[:, at]
        inner = cross[:, :, at]
        ends = np.cumsum([0, *(len(self._blocks[i]) for i in chosen)])
        for i, (a, b) in zip(chosen, pairwise(ends.tolist()), strict=True):
            inner[:, a:b, a:b] += self._noise[i]
        return np.asarray(np.linalg.inv(inner) @ cross), cross


class FitError:
    """E[(t̂ − t)²] of a target t̂ = gᵀû read off the law alone, û fitted to runs that the law misses by δ.

    With M = P + JᵀR⁻¹J (P the prior's precision), s = M⁻¹g and V = R⁻¹J the estimate gives each run the weight Vs:

        gᵀs + q²·(sᵀVᵀKVs − 2·sᵀVᵀk + k₀)

    is its variance if the law were true, prior included, plus the square of what δ adds: to the estimate by way of the
    runs, whose δ have covariance q²K, and to the truth, which reads q²k₀ of it and q²k together with the runs.
    """

    def __init__(self, views: Sequence[Outlook]) -> None:
        made = len(views[0].made_noise)
        self._made = np.arange(made)
        self._blocks = blocks_of([len(noise) for noise in views[0].noise], first=made)
        self._J = np.stack([view.jacobian for view in views])
        self._V = np.stack([_weighted(view, self._blocks) for view in views])
        self._g = np.stack([view.gradient for view in views])
        self._K = views[0].kernel
        self._q2 = np.array([view.amplitude**2 for view in views])
        self._k = np.stack([view.reads for view in views])
        self._own = np.array([view.reads_itself for view in views])
        self._M = np.stack([np.diag(view.prior_sd**-2.0) for view in views]) + self._information(self._made)
        self._G = np.stack([self._information(at) for at in self._blocks], axis=1)  # (w, n_pool, p, p)

    def error(self, chosen: list[int]) -> Array:
        """Mean squared errors."""
        M, A, c, _ = self._sums(chosen)
        s = np.linalg.solve(M, self._g[..., None])[..., 0]
        bias = np.einsum("wp,wpq,wq->w", s, A, s) - 2 * np.einsum("wp,wp->w", s, c) + self._own
        return np.asarray(np.einsum("wp,wp->w", self._g, s) + self._q2 * bias)

    def with_one_more(self, chosen: list[int]) -> Array:
        """Sums over the runs made are shared; one more adds a few products each."""
        M, A, c, H = self._sums(chosen)
        s = np.linalg.solve(M[:, None] + self._G, self._g[:, None, :, None])[..., 0]  # (w, n_pool, p)
        bias = np.einsum("wnp,wpq,wnq->wn", s, A, s, optimize=True) - 2 * np.einsum("wnp,wp->wn", s, c)
        for mine, at in groups_of(self._blocks):
            V, here = self._V[:, at], s[:, mine]
            own = np.einsum("wnip,wnp->wni", V, here)  # weights of the run's own measurements
            others = np.einsum("wnip,wnp->wni", H[:, at], here)
            itself = np.einsum("wni,nij,wnj->wn", own, self._K[at[:, :, None], at[:, None, :]], own, optimize=True)
            bias[:, mine] += itself + 2 * np.einsum("wni,wni->wn", own, others - self._k[:, at])
        variance = np.einsum("wp,wnp->wn", self._g, s)
        return np.asarray(variance + self._q2[:, None] * (bias + self._own[:, None]))

    def _information(self, at: Places) -> Array:
        return np.asarray(np.einsum("wip,wiq->wpq", self._J[:, at], self._V[:, at]))

    def _sums(self, chosen: list[int]) -> tuple[Array, Array, Array, Array]:
        """M, VᵀKV, Vᵀk of the rows made and chosen, and KV of every row with them."""
        at = np.concatenate([self._made, *(self._blocks[i] for i in chosen)])
        V = self._V[:, at]
        H = np.einsum("ij,wjp->wip", self._K[:, at], V, optimize=True)
        A = np.einsum("wip,wiq->wpq", V, H[:, at])
        return self._M + self._G[:, chosen].sum(axis=1), A, np.einsum("wip,wi->wp", V, self._k[:, at]), H


def blocks_of(sizes: Sequence[int], first: int) -> list[Places]:
    """Places of each run's measurements, from ``first`` on."""
    ends = np.cumsum([first, *sizes])
    return [np.arange(a, b) for a, b in pairwise(ends.tolist())]


def groups_of(blocks: Sequence[Places]) -> list[tuple[Places, Places]]:
    """Runs with as many measurements each: which they are (r,), and the places of these (r, m)."""
    sizes = np.array([len(block) for block in blocks])
    return [
        (mine, np.array([blocks[i] for i in mine.tolist()]))
        for mine in (np.flatnonzero(sizes == m) for m in np.unique(sizes))
    ]


def _weighted(view: Outlook, blocks: Sequence[Places]) -> Array:
    """R⁻¹J, (m + n, p)."""
    made = len(view.made_noise)
    parts = [np.linalg.solve(noise, view.jacobian[at]) for noise, at in zip(view.noise, blocks, strict=True)]
    return np.concatenate([view.jacobian[:made] / view.made_noise[:, None], *parts])
