import json
import sys

import pytest

from scaling_sim.data.heldout import ENVIRONMENT
from scaling_sim.data.source import expand_paths, file_documents, stdlib_documents
from scaling_sim.errors import DataError


def contents(paths, **options):
    return [document.content for document in file_documents(expand_paths([str(path) for path in paths]), **options)]


def test_standard_library_is_there_without_tests_and_held_out_prose():
    documents = list(stdlib_documents())
    names = [document.name for document in documents]
    assert names == sorted(names, key=lambda name: name.split("/"))
    assert "abc.py" in names
    assert sum(len(document.content) for document in documents) > 8e6
    folders = {part for name in names for part in name.split("/")[:-1]}
    assert folders.isdisjoint({"test", "tests", "idlelib", "site-packages", "pydoc_data"})


def test_a_python_without_its_library(tmp_path):
    with pytest.raises(DataError, match='source = "files"'):
        list(stdlib_documents(tmp_path))


@pytest.mark.parametrize("name", ["python-prose", "numpy-headers", "licences"])
def test_held_out_distributions_of_a_plain_environment(name):
    size = sum(len(document.content) for document in ENVIRONMENT[name]())
    assert size > 100_000


def test_absent_prose_is_no_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    assert list(ENVIRONMENT["python-prose"]()) == []


def test_text_files_keep_their_raw_bytes(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe not utf-8 \x80")
    assert contents([tmp_path / "a.txt"]) == [b"\xff\xfe not utf-8 \x80"]


def test_long_text_is_cut_at_line_ends(tmp_path):
    text = b"".join(b"%06d\n" % i for i in range(1000))
    (tmp_path / "a.txt").write_bytes(text)
    parts = contents([tmp_path / "a.txt"], piece_bytes=100)
    assert b"".join(parts) == text
    assert {len(part) for part in parts[:-1]} == {98}


def test_text_is_cut_the_same_however_it_is_read(tmp_path, monkeypatch):
    from scaling_sim.data.document import pieces

    text = bytes((i * i * 31) % 251 for i in range(5000))
    (tmp_path / "a.txt").write_bytes(text)
    for block in (100, 128, 999, 10_000):
        monkeypatch.setattr("scaling_sim.data.source.BLOCK_BYTES", block)
        assert contents([tmp_path / "a.txt"], piece_bytes=100) == list(pieces(text, 100))


def test_jsonl_and_its_field(tmp_path):
    lines = [json.dumps({"text": "one", "id": 1}), "", json.dumps({"text": "zw\u00f6lf"})]
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert contents([tmp_path / "a.jsonl"]) == [b"one", "zw\u00f6lf".encode()]
    with pytest.raises(DataError, match=r"a\.jsonl, line 1 has no field 'body'; it has: text, id"):
        contents([tmp_path / "a.jsonl"], text_field="body")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{broken", "line 1 is not JSON"),
        (b"[1, 2]", "must be a JSON object with a field 'text', got list"),
        (b'{"text": null}', "field 'text' must be text, got NoneType"),
        (b'{"text": 3}', "must be text, got int"),
        (b"\xff\xfe", "line 1 is not JSON"),
    ],
)
def test_bad_jsonl(tmp_path, line, message):
    (tmp_path / "a.jsonl").write_bytes(line)
    with pytest.raises(DataError, match=message):
        contents([tmp_path / "a.jsonl"])


def test_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": ["one", "two"], "n": [1, 2]}), tmp_path / "a.parquet")
    assert contents([tmp_path / "a.parquet"]) == [b"one", b"two"]
    with pytest.raises(DataError, match="no column 'body'; it has: text, n"):
        contents([tmp_path / "a.parquet"], text_field="body")
    with pytest.raises(DataError, match="row 0: field 'n' must be text, got int"):
        contents([tmp_path / "a.parquet"], text_field="n")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 is not enough")
    with pytest.raises(DataError, match=r"cannot read .*b\.parquet as parquet"):
        contents([tmp_path / "b.parquet"])


def test_globs_folders_and_duplicates(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("a.txt", "b.md", "deep/c.txt", "picture.png"):
        (tmp_path / name).write_text(name)
    assert contents([tmp_path]) == [b"a.txt", b"b.md", b"deep/c.txt"]
    assert contents([tmp_path / "*.txt", tmp_path / "a.txt"]) == [b"a.txt"]
    assert contents([tmp_path / "**" / "*.txt"]) == [b"a.txt", b"deep/c.txt"]
    assert contents([tmp_path / "picture.png"]) == [b"picture.png"]  # named outright: its bytes are taken


def test_nothing_matches(tmp_path):
    with pytest.raises(DataError, match=r"no file matches .*\*\.txt"):
        expand_paths([str(tmp_path / "*.txt")])
    with pytest.raises(DataError, match="needs paths, got none"):
        expand_paths([])


def test_unreadable_file(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("x")
    paths = expand_paths([str(tmp_path / "a.txt")])
    (tmp_path / "a.txt").unlink()
    (tmp_path / "a.txt").mkdir()  # the permission bits do not stop root, a folder does
    with pytest.raises(DataError, match=r"cannot read .*a\.txt"):
        list(file_documents(paths))
