"""Build the English corpus from Debian documentation: ``python -m benchmarks.corpora.build_english``."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import struct
import subprocess
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.corpora.cleaning import READERS, Deduplicator, cleaned, decoded
from benchmarks.corpora.packing import pack, unpack
from benchmarks.corpora.recipe import HEADERS, TRAINING, Source

HELD_OUT_BYTES = 2_500_000
PART_BYTES = 16384


def download(packages: list[str], folder: Path) -> None:
    """Fetch the packages that ``folder`` lacks; nothing is installed."""
    folder.mkdir(parents=True, exist_ok=True)
    if missing := [name for name in packages if not list(folder.glob(f"{name}_*.deb"))]:
        subprocess.run(["apt-get", "download", *missing], cwd=folder, check=True)


def archive_of(package: str, folder: Path) -> Path:
    """The package's file in ``folder``; the last one by name where there are several."""
    found = sorted(folder.glob(f"{package}_*.deb"))
    if not found:
        raise SystemExit(f"no {package}_*.deb in {folder}; run without --no-download")
    return found[-1]


def package_files(archive: Path, wanted: re.Pattern[str], unwanted: re.Pattern[str]) -> Iterator[tuple[str, bytes]]:
    """(path, content) of the plain files of a package whose path matches, in path order; nothing touches the disk."""
    found = []
    command = ["dpkg-deb", "--fsys-tarfile", str(archive)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as unpacking,
        tarfile.open(fileobj=unpacking.stdout, mode="r|") as tar,
    ):
        for member in tar:
            if member.isfile() and wanted.search(member.name) and not unwanted.search(member.name):
                content = tar.extractfile(member)
                assert content is not None, "a plain file has content"
                found.append((member.name, content.read()))
        unpacking.communicate()  # the padding behind the last member
    if unpacking.returncode:
        raise SystemExit(f"dpkg-deb cannot read {archive}; delete it and download it again")
    yield from sorted(found)


def documents(source: Source, archive: Path) -> Iterator[tuple[int, list[str]]]:
    """(bytes before, clean paragraphs) of every file of ``source``."""
    kinds = ((source.kind, source.include), *source.also)
    wanted = re.compile("|".join(include for _, include in kinds))
    unwanted = re.compile(source.exclude or "(?!)")
    for name, content in package_files(archive, wanted, unwanted):
        kind = next(kind for kind, include in kinds if re.search(include, name))
        text = decoded(content, name)
        yield len(text), list(cleaned(READERS[kind](text)))


MIN_DOCUMENT = 200
"""Bytes; what is left of a shorter page is its title."""


def write_training(source: Source, archive: Path, target: Path, unique: Deduplicator) -> dict[str, Any]:
    """Write the text of one package, documents parted by two empty lines; gives its line of the manifest."""
    dropped = unique.dropped_bytes
    before, written = 0, []
    for size, paragraphs in documents(source, archive):
        before += size
        kept = "\n\n".join(paragraph for paragraph in paragraphs if unique.add(paragraph))
        if len(kept) >= MIN_DOCUMENT:
            written.append(kept)
    target.write_text("\n\n\n".join(written) + "\n", encoding="utf-8")
    return describe(target, archive) | {
        "license": source.license, "bytes_before": before, "duplicate_bytes": unique.dropped_bytes - dropped,
        "documents": len(written),
    }  # fmt: skip


def describe(target: Path, archive: Path) -> dict[str, Any]:
    """Package, version, size and SHA-256 of a written file."""
    package, version, _ = archive.name.rsplit("_", 2)
    content = target.read_bytes()
    return {
        "package": package, "version": version.replace("%3a", ":"), "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }  # fmt: skip


def spread(text: str, limit: int) -> str:
    """About ``limit`` characters of ``text``: paragraphs gathered to parts, and parts taken at even distances."""
    parts, size = [[]], 0
    for paragraph in text.split("\n\n"):
        if size > PART_BYTES:
            parts, size = [*parts, []], 0
        parts[-1].append(paragraph)
        size += len(paragraph)
    stride = max(1.0, len(text) / limit)
    chosen = sorted({int(index * stride) for index in range(int(len(parts) / stride))})
    return "\n\n".join("\n\n".join(parts[index]) for index in chosen) + "\n"


def dictionary(archive: Path) -> str:
    """Entries of the dictionary from every letter, its source marks taken off."""
    [(name, content)] = package_files(archive, re.compile(r"gcide\.dict\.dz$"), re.compile("(?!)"))
    text = re.sub(r"\n *\[(1913 Webster|PJC|WordNet[^]]*|Webster[^]]*)[^]]*\]|\{|\}", "", decoded(content, name))
    return spread("\n\n".join(cleaned(text.split("\n\n"))), HELD_OUT_BYTES)


def novels(archive: Path) -> str:
    """Jane Austen's six novels, from R's lazy-load file: blocks of a 4-byte length and a zlib stream."""
    [(_, content)] = package_files(archive, re.compile(r"data/Rdata\.rdb$"), re.compile("(?!)"))
    books = []
    while content:
        stream = zlib.decompressobj()
        books.append("\n".join(r_strings(stream.decompress(content[4:]))))
        content = stream.unused_data
    return "\n\n\n".join(sorted("\n\n".join(cleaned(book.split("\n\n"))) for book in books if len(book) > 1000)) + "\n"


CHARACTER_VECTOR, HEADER = 16, 2 + 3 * 4


def r_strings(serialized: bytes) -> Iterator[str]:
    """Strings of an R character vector in XDR serialization, version 2 or 3."""
    place = HEADER
    if struct.unpack_from(">i", serialized, 2)[0] == 3:
        place += 4 + struct.unpack_from(">i", serialized, place)[0]
    flags, count = struct.unpack_from(">ii", serialized, place)
    if flags & 0xFF != CHARACTER_VECTOR:
        return
    place += 8
    for _ in range(count):
        _, length = struct.unpack_from(">ii", serialized, place)
        place += 8
        yield serialized[place : place + max(length, 0)].decode("utf-8")
        place += max(length, 0)


COMMENT = re.compile(r"\A\s*(/\*.*?\*/\s*|//[^\n]*\n\s*)+", re.DOTALL)


def code(archive: Path, wanted: str, unwanted: str = "(?!)") -> str:
    """Source files taken at even distances, licence comments at their heads left out."""
    files = package_files(archive, re.compile(wanted), re.compile(unwanted))
    texts = [COMMENT.sub("", decoded(content, name)).strip() for name, content in files]
    texts = [text.replace("\r\n", "\n") for text in dict.fromkeys(texts) if len(text) >= MIN_DOCUMENT]
    stride = max(1.0, sum(map(len, texts)) / HELD_OUT_BYTES)
    return "\n\n\n".join(texts[int(index * stride)] for index in range(int(len(texts) / stride))) + "\n"


def held_out(debs: Path) -> dict[str, tuple[Path, str]]:
    """Archive and text of every held-out distribution."""
    books, words = archive_of("r-cran-janeaustenr", debs), archive_of("dict-gcide", debs)
    headers, library = archive_of(HEADERS, debs), archive_of("libpython3.11-stdlib", debs)
    return {
        "novels": (books, novels(books)),
        "dictionary": (words, dictionary(words)),
        "c-code": (headers, code(headers, r"/include/(linux|net|media|sound|drm|crypto|rdma|scsi|trace)/.*\.h$")),
        "python-code": (library, code(library, r"\.py$", r"pydoc_data|encodings/")),
    }


def build(out: Path, debs: Path) -> dict[str, Any]:
    """Write ``train/*.txt``, ``held_out/*.txt`` and ``manifest.json`` under ``out``; gives the manifest."""
    unique = Deduplicator()
    manifest: dict[str, Any] = {"train": {}, "held_out": {}}
    for part in ("train", "held_out"):
        (out / part).mkdir(parents=True, exist_ok=True)
        for stale in (out / part).glob("*.txt"):
            stale.unlink()
    for name, (archive, text) in held_out(debs).items():
        target = out / "held_out" / f"{name}.txt"
        target.write_text(text, encoding="utf-8")
        for paragraph in text.split("\n\n"):
            unique.add(paragraph)
        manifest["held_out"][name] = describe(target, archive)
    for source in TRAINING:
        target = out / "train" / f"{source.package}.txt"
        manifest["train"][source.package] = write_training(source, archive_of(source.package, debs), target, unique)
        print(source.package, manifest["train"][source.package]["bytes"], flush=True)
    manifest["train_bytes"] = sum(entry["bytes"] for entry in manifest["train"].values())
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return manifest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(".corpus/english"))
    parser.add_argument("--debs", type=Path, default=Path(".corpus/debs"), help="folder of downloaded packages")
    parser.add_argument("--no-download", action="store_true")
    parser.add_argument("--pack", type=Path, metavar="ARCHIVE", help="write it as one tar.xz too")
    parser.add_argument("--unpack", type=Path, metavar="ARCHIVE", help="only unpack this archive into --out")
    options = parser.parse_args()
    if options.unpack:
        print(f"{len(unpack(options.unpack, options.out))} files in {options.out}")
        return
    if not options.no_download:
        extra = ["r-cran-janeaustenr", "dict-gcide", HEADERS, "libpython3.11-stdlib"]
        download([source.package for source in TRAINING] + extra, options.debs)
    manifest = build(options.out, options.debs)
    print(f"{manifest['train_bytes'] / 1e6:.1f} MB to train on")
    if options.pack:
        print(f"{pack(options.out, options.pack) / 2**20:.1f} MiB packed")


if __name__ == "__main__":
    main()
