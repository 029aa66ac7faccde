"""What the driver of a sweep and its workers say to each other: length-prefixed MessagePack over pipes, no pickle."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np

from scaling_sim.engine.cohort import Precision
from scaling_sim.engine.protocol import Tokens
from scaling_sim.runs.record import RunRecord
from scaling_sim.training.loop import CohortProgress, CohortTask


class SplitFile(msgspec.Struct, frozen=True):
    """A 1-D token array in a file, to be memory-mapped."""

    path: str
    dtype: str
    offset: int
    length: int

    def open(self) -> Tokens:
        """The array, read-only."""
        return np.memmap(self.path, dtype=self.dtype, mode="r", offset=self.offset, shape=(self.length,))


class Setup(msgspec.Struct, frozen=True, tag=True):
    """First message to a worker: who computes, on which tokens."""

    backend: str
    device: str
    precision: Precision
    splits: dict[str, SplitFile]
    checkpoint_seconds: float = 10.0
    chunk_seconds: float = 1.0


class Train(msgspec.Struct, frozen=True, tag=True):
    """Train this cohort."""

    task: CohortTask


class Time(msgspec.Struct, frozen=True, tag=True):
    """Time a few updates of this cohort."""

    task: CohortTask
    seconds: float


class Stop(msgspec.Struct, frozen=True, tag=True):
    """Save and leave at the next chunk, then end."""


class Finished(msgspec.Struct, frozen=True, tag=True):
    """A run has ended."""

    cohort: str
    record: RunRecord


class Ended(msgspec.Struct, frozen=True, tag=True):
    """A cohort is over; ``complete`` is False if it was told to stop."""

    cohort: str
    complete: bool


class Timed(msgspec.Struct, frozen=True, tag=True):
    """Speed of a cohort, evaluations not included."""

    cohort: str
    tokens_per_second: float


class Failed(msgspec.Struct, frozen=True, tag=True):
    """A cohort ended with an error."""

    cohort: str
    message: str


class Lost(msgspec.Struct, frozen=True, tag=True):
    """The worker of a cohort died (said by the executor)."""

    cohort: str
    message: str


Order = Setup | Train | Time | Stop
Event = CohortProgress | Finished | Ended | Timed | Failed | Lost

_LENGTH = struct.Struct("<I")
_orders: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(Order)
_events: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(Event)


def send(pipe: BinaryIO, message: Order | Event) -> None:
    """Write one message; raises ``OSError`` if the other side is gone."""
    data = msgspec.msgpack.encode(message)
    pipe.write(_LENGTH.pack(len(data)) + data)
    pipe.flush()


def receive_order(pipe: BinaryIO) -> Order | None:
    """The next order, None when the driver is gone."""
    data = _receive(pipe)
    return None if data is None else _orders.decode(data)


def receive_event(pipe: BinaryIO) -> Event | None:
    """The next event, None when the worker is gone (also in the middle of a message)."""
    data = _receive(pipe)
    return None if data is None else _events.decode(data)


def _receive(pipe: BinaryIO) -> bytes | None:
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    data = pipe.read(length)
    return data if len(data) == length else None


def split_files(splits: Mapping[str, Tokens], folder: Path) -> dict[str, SplitFile]:
    """Files from which workers map the splits; arrays that only live in memory are written to ``folder``."""
    return {name: _mapped(tokens) or _written(tokens, folder / f"{name}.tokens") for name, tokens in splits.items()}


def _mapped(tokens: Tokens) -> SplitFile | None:
    """The file of a memory map that covers it as a whole (a view of a map does not know its own offset)."""
    whole = isinstance(tokens, np.memmap) and not isinstance(tokens.base, np.ndarray) and tokens.filename is not None
    if not whole:
        return None
    assert isinstance(tokens, np.memmap)
    return SplitFile(str(tokens.filename), tokens.dtype.str, int(tokens.offset), len(tokens))


def _written(tokens: Tokens, path: Path) -> SplitFile:
    np.ascontiguousarray(tokens).tofile(path)
    return SplitFile(str(path), tokens.dtype.str, 0, len(tokens))
