"""One compressed archive of a corpus, the same bytes for the same files; and its safe unpacking."""

from __future__ import annotations

import io
import lzma
import tarfile
from pathlib import Path, PurePosixPath

FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 27}]


def pack(folder: Path, archive: Path) -> int:
    """Write every file of ``folder`` into ``archive`` (tar.xz); gives its size in bytes."""
    with lzma.open(archive, "wb", filters=FILTERS) as stream, tarfile.open(fileobj=stream, mode="w|") as tar:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            content = path.read_bytes()
            member = tarfile.TarInfo(path.relative_to(folder).as_posix())
            member.size, member.mode = len(content), 0o644
            tar.addfile(member, io.BytesIO(content))
    return archive.stat().st_size


def unpack(archive: Path, folder: Path) -> list[Path]:
    """Write the files of ``archive`` into ``folder``; gives their paths.

    Raises
    ------
    ValueError
        A member is not a plain file, or its path leads out of ``folder``; members before it have been written.
    """
    written = []
    with tarfile.open(archive, "r:xz") as tar:
        for member in tar:
            target = _target(member, folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            source = tar.extractfile(member)
            assert source is not None, "a plain file has content"
            target.write_bytes(source.read())
            written.append(target)
    return written


def _target(member: tarfile.TarInfo, folder: Path) -> Path:
    path = PurePosixPath(member.name)
    target = folder / path
    inside = target.resolve().is_relative_to(folder.resolve())
    if not member.isfile() or path.is_absolute() or ".." in path.parts or not inside:
        raise ValueError(
            f"an archive may hold plain files inside its folder only, found {member.name!r}; do not use it"
        )
    return target
