"""Finished runs in one small file: what was trained on, then one record per line, compressed.

A file ``NAME.jsonl.xz``: its first line holds facts about all runs, every other line a `RunRecord`, by run id.
"""

from __future__ import annotations

import lzma
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from scaling_sim.errors import DataError
from scaling_sim.runs.codec import encode_record
from scaling_sim.runs.record import CurvePoint, RunRecord

SUFFIX = ".jsonl.xz"
SHIPPED = Path(__file__).resolve().parents[1] / "datasets"
"""Folder of the files that are part of the package."""
DIGITS = 6
"""Significant digits of what was measured, in a file."""
FITTED = frozenset({"curve", "final", "data", "batch", "seed", "lr"})
"""Purposes of runs that differ in size, data, compute or batch alone, as a law of them wants."""

T = TypeVar("T")


class CorpusFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about a text that runs were trained on."""

    key: str
    """Short name: ``english``, ``english-bpe``, ``synthetic``."""
    name: str
    tokens: int
    """Of the training split."""
    vocab_size: int
    entropy: float | None = None
    """Nats per token, where it is known."""
    splits: dict[str, int] = {}
    """Evaluated split → tokens."""


class Facts(msgspec.Struct, frozen=True):
    """What every file says about its runs; it may say more."""

    corpora: dict[str, CorpusFacts]
    """By the hash that stands in a run's configuration."""


class Archive(NamedTuple):
    """Content of a file: facts as plain dictionaries, and records."""

    facts: dict[str, Any]
    records: tuple[RunRecord, ...]

    @property
    def corpora(self) -> dict[str, CorpusFacts]:
        """Texts by hash."""
        return msgspec.convert(self.facts, Facts).corpora

    def check(self, origin: str) -> Archive:
        """Itself.

        Raises
        ------
        DataError
            Facts are missing; a run id stands there twice, is not that of its configuration, or its corpus is unknown.
        """
        try:
            corpora = self.corpora
        except msgspec.ValidationError as error:
            raise DataError(f"{origin}: its facts must hold corpora by hash: {error}") from error
        ids = Counter(record.run_id for record in self.records)
        _refuse(origin, "stand there more than once", (run_id for run_id, count in ids.items() if count > 1))
        _refuse(
            origin,
            "are not the hash of their configuration (was the file edited, or written by another version?)",
            (record.run_id for record in self.records if record.config.run_id != record.run_id),
        )
        _refuse(
            origin,
            "were trained on a corpus that its facts do not name",
            (record.run_id for record in self.records if record.config.corpus not in corpora),
        )
        return self


def read_archive(path: str | Path) -> Archive:
    """Facts and records of a file.

    Raises
    ------
    DataError
        There is no such file, it is damaged, a line is no record, or what `Archive.check` refuses.
    """
    try:
        content = lzma.decompress(Path(path).read_bytes(), lzma.FORMAT_XZ)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except lzma.LZMAError as error:
        raise DataError(f"{path} is damaged or not compressed with xz ({error}); copy it again") from error
    first, *lines = content.splitlines() or [b""]
    facts = _decoded(path, 1, first, msgspec.json.Decoder(dict[str, Any]), "facts about the runs")
    decoder = msgspec.json.Decoder(RunRecord, strict=False)  # not strict: "nan" becomes a float
    records = tuple(_decoded(path, n, line, decoder, "a run record") for n, line in enumerate(lines, start=2))
    return Archive(facts, records).check(str(path))


def write_archive(path: str | Path, records: Iterable[RunRecord], facts: Mapping[str, Any]) -> None:
    """Write ``records`` and ``facts`` for `read_archive`; what was read from a file gives the same file again.

    Losses, their errors and noise scales are rounded to six significant digits, a thousandth of the noise between
    seeds, which makes the file half as large. Configurations stay exact.

    Parameters
    ----------
    path : path ending in ``.jsonl.xz``
    records : iterable of RunRecord
    facts : mapping
        ``corpora``: hash → `CorpusFacts` as a mapping; date, device, commit and what else a reader should know.

    Raises
    ------
    DataError
        The name ends otherwise, or what `Archive.check` refuses.
    """
    if not str(path).endswith(SUFFIX):
        raise DataError(f"the name of a file of runs must end in {SUFFIX}, got {Path(path).name}")
    ordered = tuple(sorted(records, key=lambda record: record.run_id))
    Archive(dict(facts), ordered).check(str(path))
    lines = [msgspec.json.encode(facts, order="sorted"), *(encode_record(_rounded(record)) for record in ordered)]
    Path(path).write_bytes(lzma.compress(b"\n".join(lines) + b"\n", preset=6 | lzma.PRESET_EXTREME))


def shipped_archive(name: str) -> Path:
    """Where the package keeps the file of this name."""
    return SHIPPED / f"{name}{SUFFIX}"


def find_archive(source: str | Path) -> Path | None:
    """The file meant by a path or by the name of a shipped one; None if it is neither."""
    path = Path(source)
    if path.exists() or path.parent != Path():
        return path if path.name.endswith(SUFFIX) else None
    shipped = shipped_archive(path.name.removesuffix(SUFFIX))
    return shipped if shipped.exists() else path if path.name.endswith(SUFFIX) else None


def fitted_runs(archive: Archive) -> tuple[list[RunRecord], dict[str, tuple[str, ...]]]:
    """Runs that a law of size, data, compute and batch may be fitted to together, and the ids of others by reason.

    They share a corpus, the one that most runs have, and early-stopped ones a dropout rate, again that of most.
    """
    kept: list[RunRecord] = []
    dropped: dict[str, tuple[str, ...]] = {}
    corpus = _commonest(record.config.corpus for record in archive.records)
    dropout = _commonest(r.config.recipe.dropout for r in archive.records if r.config.early_stop)
    keys = {text: found.key for text, found in archive.corpora.items()}
    for record in archive.records:
        reason = None
        if record.config.corpus != corpus:
            reason = f"of another corpus: {keys[record.config.corpus]}"
        elif record.purposes and not FITTED & set(record.purposes):
            reason = f"made to compare something else: {' and '.join(record.purposes)}"
        elif record.config.early_stop and record.config.recipe.dropout != dropout:
            reason = f"early-stopped with another dropout rate than most: {record.config.recipe.dropout:g}"
        if reason is None:
            kept.append(record)
        else:
            dropped[reason] = (*dropped.get(reason, ()), record.run_id)
    return kept, dropped


def _commonest(values: Iterable[T]) -> T | None:
    return max(Counter(values).most_common(1), default=(None, 0))[0]


def _refuse(origin: str, what: str, run_ids: Iterable[str]) -> None:
    found = list(run_ids)
    if found:
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        raise DataError(f"{origin}: {len(found)} run ids {what}: {', '.join(found[:5])}{more}")


def _decoded(path: str | Path, number: int, line: bytes, decoder: msgspec.json.Decoder[T], what: str) -> T:
    try:
        return decoder.decode(line)
    except msgspec.MsgspecError as error:
        raise DataError(f"{path}, line {number} does not hold {what}: {error}") from error


def _rounded(record: RunRecord) -> RunRecord:
    return msgspec.structs.replace(record, curve=tuple(_rounded_point(point) for point in record.curve))


def _rounded_point(point: CurvePoint) -> CurvePoint:
    return msgspec.structs.replace(
        point,
        train=_round(point.train),
        losses={split: _round(loss) for split, loss in point.losses.items()},
        errors={split: _round(error) for split, error in point.errors.items()},
        last_position={split: _round(loss) for split, loss in point.last_position.items()},
        noise_scale=None if point.noise_scale is None else _round(point.noise_scale),
        positions=tuple(_round(loss) for loss in point.positions),
    )


def _round(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
