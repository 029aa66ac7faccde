"""Several processes that train each model together, as torchrun starts them: rank 0 leads, the others follow.

Rank 0 runs the sweep as if it were alone (store, checkpoints, report); every order that it carries out it first shares,
and the followers carry out the same. What depends on the clock (lengths of chunks, checkpoints, stopping) is decided by
rank 0, through `Trainer.agree`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Protocol

import msgspec

from scaling_sim.engine.protocol import Tokens
from scaling_sim.engine.registry import OWN_BACKENDS, get_backend
from scaling_sim.errors import BackendUnavailable, ConfigError, ScalingSimError
from scaling_sim.training.executor import InProcess
from scaling_sim.training.messages import Event, Failed, Order, Setup, Stop, Time, Train
from scaling_sim.training.worker import Worker

TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_orders: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(Order)


class Ranks(Protocol):
    """What a backend's ``ranks()`` returns: the processes, joined."""

    rank: int
    size: int
    device: str

    def share(self, message: bytes) -> bytes:
        """Rank 0's message, on every rank."""
        ...

    def leave(self) -> None:
        """Part, when every rank has come to this point."""
        ...


@lru_cache
def joined() -> tuple[str, Ranks] | None:
    """The backend that unites the ranks, and the ranks; None unless torchrun (its variables) started several."""
    if not all(name in os.environ for name in TORCHRUN) or int(os.environ["WORLD_SIZE"]) < 2:
        return None
    for name in OWN_BACKENDS:
        try:
            join = getattr(get_backend(name), "ranks", None)
        except ScalingSimError:
            continue
        if join is not None:
            return name, join()
    raise BackendUnavailable("several ranks were started, but no backend here unites them; install scaling-sim[torch]")


def united(backend: str, device: str | None, workers: int | None) -> tuple[str, str | None, int | None]:
    """Backend, device and workers of a sweep: those asked for, or those of the ranks."""
    found = joined()
    if found is None:
        return backend, device, workers
    name, ranks = found
    if backend not in ("auto", name) or workers:
        raise ConfigError(f"under torchrun {name} trains, without workers; got backend {backend!r}, workers {workers}")
    kind = device or ranks.device
    return name, ranks.device if kind[:4] == ranks.device[:4] else device, 0


class Leader(InProcess):
    """Trains in this process, together with the followers."""

    def __init__(self, ranks: Ranks, setup: Setup, splits: dict[str, Tokens]) -> None:
        super().__init__(setup, splits)
        self._ranks = ranks
        self._share(setup)

    def submit(self, order: Train | Time) -> None:
        """Remember the cohort, here and elsewhere."""
        self._share(order)
        super().submit(order)

    def close(self) -> None:
        """End the followers' workers; they wait for the next sweep."""
        self._share(Stop())

    def _share(self, order: Order) -> None:
        self._ranks.share(msgspec.msgpack.encode(order))


@contextmanager
def leading() -> Iterator[None]:
    """Around everything that rank 0 does; afterwards the followers end. After an error torchrun ends them."""
    yield
    found = joined()
    if found is not None:
        found[1].share(b"")
        _part(found[1])


def follow() -> bool:
    """Follow rank 0 until it has done everything; False, at once, in rank 0 and where there is only one process."""
    found = joined()
    if found is None or found[1].rank == 0:
        return False
    ranks, worker = found[1], None
    while message := ranks.share(b""):
        order = _orders.decode(message)
        if isinstance(order, Setup):
            device = ranks.device if order.device.startswith("cuda") else order.device
            worker = Worker(msgspec.structs.replace(order, device=device), _deaf, lambda: False)
        elif worker is not None and isinstance(order, Train):
            worker.train(order.task)
        elif worker is not None and isinstance(order, Time):
            worker.time(order.task, order.seconds)
    _part(ranks)
    return True


def _part(ranks: Ranks) -> None:
    ranks.leave()
    joined.cache_clear()


def _deaf(event: Event) -> None:
    """A follower that fails must end, or the others would wait for it; the same command continues."""
    if isinstance(event, Failed):
        raise BackendUnavailable(f"a rank failed: {event.message}")
