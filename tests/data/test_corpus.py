import json
import multiprocessing
import os
import pickle
import shutil
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from scaling_sim.config import to_record
from scaling_sim.data import Corpus, CorpusConfig, SyntheticConfig, load_corpus, open_corpus, shards
from scaling_sim.data import corpus as corpus_module
from scaling_sim.errors import ConfigError, DataError


def write_documents(folder: Path, texts) -> CorpusConfig:
    """A jsonl corpus of our own, without what the environment would add."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "docs.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
    return CorpusConfig(
        source="files",
        paths=(str(folder / "docs.jsonl"),),
        environment_held_out=False,
        validation_fraction=0.2,
        test_fraction=0.2,
    )


TEXTS = [f"document {i} " + "word " * (i % 7) for i in range(60)]


@pytest.fixture
def config(tmp_path):
    return write_documents(tmp_path / "in", TEXTS)


def documents_of(corpus, split):
    return set(bytes(corpus.splits[split]).split(b"\0")) - {b""}


def test_splits_hold_every_document_once(config, tmp_path):
    corpus = load_corpus(config, tmp_path / "cache")
    parts = [documents_of(corpus, split) for split in ("train", "validation", "test")]
    assert all(parts)
    assert set().union(*parts) == {text.encode() for text in TEXTS}
    assert sum(map(len, parts)) == len(TEXTS)
    assert dict(corpus.documents) == dict(zip(("train", "validation", "test"), map(len, parts), strict=True))
    assert corpus.vocab_size == 256
    assert len(corpus.hash) == 16


def test_order_of_documents_and_place_of_files_change_nothing(config, tmp_path):
    corpus = load_corpus(config, tmp_path / "cache")
    turned = load_corpus(write_documents(tmp_path / "elsewhere", TEXTS[::-1]), tmp_path / "cache2")
    assert turned.hash == corpus.hash
    for split, tokens in corpus.splits.items():
        np.testing.assert_array_equal(turned.splits[split], tokens)


def test_more_documents_leave_the_others_in_their_split(config, tmp_path):
    corpus = load_corpus(config, tmp_path / "cache")
    more = load_corpus(write_documents(tmp_path / "more", [*TEXTS, "new one", "new two"]), tmp_path / "cache")
    assert more.hash != corpus.hash
    for split in ("train", "validation", "test"):
        assert documents_of(corpus, split) <= documents_of(more, split)


def test_duplicates_are_kept_once(tmp_path):
    corpus = load_corpus(write_documents(tmp_path / "a", TEXTS + TEXTS[:10] + [""]), tmp_path / "cache")
    assert corpus.hash == load_corpus(write_documents(tmp_path / "b", TEXTS), tmp_path / "cache").hash
    assert "10 exact duplicates left out" in corpus.notes


def test_training_subsets_are_nested(config, tmp_path):
    corpus = load_corpus(config, tmp_path / "cache")
    np.testing.assert_array_equal(corpus.subset(200)[:100], corpus.subset(100))
    for size in (0, len(corpus.splits["train"]) + 1):
        with pytest.raises(DataError, match=r"unique_tokens must lie in 1\.\."):
            corpus.subset(size)


def test_small_subsets_sample_many_documents(tmp_path):
    texts = [f"{chr(97 + i)}line\n" * 2000 for i in range(26)]  # 12 kB each, told apart by the first letter
    corpus = load_corpus(write_documents(tmp_path / "in", texts), tmp_path / "cache")
    first = bytes(corpus.subset(40_000)).replace(b"\0", b"")
    letters = {line[:1] for line in first.splitlines()}
    assert len(letters) > 5  # in whole documents it would be 4


def test_held_out_text_is_never_trained_on(config, tmp_path):
    (tmp_path / "held.txt").write_text(TEXTS[0])
    held = msgspec.structs.replace(config, held_out={"mine": (str(tmp_path / "held.txt"),)})
    corpus = load_corpus(held, tmp_path / "cache")
    assert corpus.held_out == ("mine",)
    assert documents_of(corpus, "mine") == {TEXTS[0].encode()}
    for split in ("train", "validation", "test"):
        assert TEXTS[0].encode() not in documents_of(corpus, split)


def test_second_load_maps_the_same_files(config, tmp_path, monkeypatch):
    first = load_corpus(config, tmp_path / "cache")
    monkeypatch.setattr(corpus_module, "build_corpus", lambda *_: pytest.fail("built twice"))
    again = load_corpus(config, tmp_path / "cache")
    assert again.hash == first.hash
    assert isinstance(again.splits["train"], np.memmap)
    assert not again.splits["train"].flags.writeable


def test_changed_files_give_a_new_corpus(config, tmp_path):
    first = load_corpus(config, tmp_path / "cache")
    write_documents(tmp_path / "in", [*TEXTS, "one more"])
    assert load_corpus(config, tmp_path / "cache").hash != first.hash


def test_travels_between_processes_as_a_path(config, tmp_path):
    corpus = load_corpus(config, tmp_path / "cache")
    sent = pickle.dumps(corpus)
    assert len(sent) < 1000
    received = pickle.loads(sent)
    assert received.hash == corpus.hash
    np.testing.assert_array_equal(received.splits["test"], corpus.splits["test"])


def test_arrays_in_memory_travel_whole():
    splits = {name: np.arange(10, dtype=np.uint8) for name in ("train", "validation", "test")}
    received = pickle.loads(pickle.dumps(Corpus(name="mine", hash="0" * 16, vocab_size=256, splits=splits)))
    assert received.folder is None
    np.testing.assert_array_equal(received.splits["train"], splits["train"])


def test_splits_come_in_a_fixed_order(config, tmp_path):
    (tmp_path / "a.txt").write_text("held out")
    held = msgspec.structs.replace(config, held_out={"another": (str(tmp_path / "a.txt"),)})
    assert list(load_corpus(held, tmp_path / "cache").splits) == ["train", "validation", "test", "another"]


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "manifest"])
def test_a_damaged_cache_is_built_again(config, tmp_path, damage):
    first = load_corpus(config, tmp_path / "cache")
    expected = np.array(first.splits["train"])
    file = first.folder / ("manifest.json" if damage == "manifest" else "train.bin")
    if damage == "flip":
        content = bytearray(file.read_bytes())
        content[5] ^= 1
        file.write_bytes(content)
    elif damage == "truncate":
        os.truncate(file, 3)
    elif damage == "remove":
        file.unlink()
    else:
        file.write_text("{")
    again = load_corpus(config, tmp_path / "cache")
    assert again.hash == first.hash
    np.testing.assert_array_equal(again.splits["train"], expected)


def test_an_interrupted_build_leaves_nothing(config, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("scaling_sim.data.build.write_manifest", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load_corpus(config, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    load_corpus(config, tmp_path / "cache")


def test_orphans_of_killed_builds_are_swept(config, tmp_path):
    old, young = tmp_path / "cache" / ".building-old", tmp_path / "cache" / ".building-young"
    for folder in (old, young):
        folder.mkdir(parents=True)
    os.utime(old, (time.time() - 2 * shards.ORPHAN_SECONDS,) * 2)
    load_corpus(config, tmp_path / "cache")
    assert not old.exists()
    assert young.exists()


def _load(config, cache, barrier, results):
    barrier.wait()
    results.put(load_corpus(config, cache).hash)


def test_processes_may_build_at_once(config, tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(3), context.Queue()
    workers = [context.Process(target=_load, args=(config, tmp_path / "cache", barrier, results)) for _ in range(3)]
    for worker in workers:
        worker.start()
    hashes = {results.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join()
    assert len(hashes) == 1
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_losing_the_race_uses_the_winners_corpus(config, tmp_path, monkeypatch):
    build = corpus_module.build_corpus

    def overtaken(config, folder):
        build(config, folder)
        winner = load_copy(config)
        shutil.copytree(winner.folder, tmp_path / "cache" / winner.folder.name)

    def load_copy(config):
        with monkeypatch.context() as patch:
            patch.setattr(corpus_module, "build_corpus", build)
            return load_corpus(config, tmp_path / "other")

    monkeypatch.setattr(corpus_module, "build_corpus", overtaken)
    corpus = load_corpus(config, tmp_path / "cache")
    assert corpus.folder.parent == tmp_path / "cache"
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [corpus.folder.name]


def test_standard_library_corpus(tmp_path):
    corpus = load_corpus(CorpusConfig(), tmp_path)
    sizes = {name: len(tokens) for name, tokens in corpus.splits.items()}
    total = sizes["train"] + sizes["validation"] + sizes["test"]
    assert total > 8e6
    assert 0.8 < sizes["train"] / total < 0.96  # few large documents: the shares hold for documents
    assert set(corpus.held_out) == {"python-prose", "numpy-headers", "licences"}
    assert all(sizes[name] > 100_000 for name in corpus.held_out)
    assert b"import " in bytes(corpus.subset(100_000))


def pair_loss(train, test):
    """Loss on ``test`` of byte pairs counted in ``train``, backing off to bytes, nats."""
    single = (np.bincount(train, minlength=256) + 0.5) / (len(train) + 128)
    pairs = np.bincount(train[:-1].astype(int) * 256 + train[1:], minlength=65536).reshape(256, 256)
    predicted = (pairs + 4 * single) / (pairs.sum(1, keepdims=True) + 4)
    return float(-np.log(predicted[test[:-1], test[1:]]).mean())


def test_every_doubling_of_the_data_helps(tmp_path):
    """Prefixes are fair samples: in whole files, or with repeated pieces in one lump, this curve jumps up and down."""
    corpus = load_corpus(CorpusConfig(), tmp_path)
    sizes = 2 ** np.arange(12, 23)
    losses = [pair_loss(np.asarray(corpus.subset(size)), np.asarray(corpus.splits["test"])) for size in sizes]
    assert (np.diff(losses) < 0).all()
    excess = np.array(losses[:6]) - losses[-1]
    assert (excess[:-1] / excess[1:] < 2).all()


def test_boilerplate_does_not_come_in_one_lump(tmp_path):
    shared = "the same words in every document, again and again\n" * 5
    texts = [shared + f"{chr(97 + i)} and its own text\n" * 12 for i in range(26)]
    config = msgspec.structs.replace(write_documents(tmp_path / "in", texts), shuffle_bytes=len(shared))
    train = bytes(load_corpus(config, tmp_path / "cache").splits["train"]).split(b"\0")
    is_shared = np.array([piece == shared.encode() for piece in train])
    assert is_shared.sum() > 8
    assert np.diff(is_shared.astype(int)).clip(0).sum() > 4  # separate stretches of boilerplate


def test_small_held_out_distributions_are_skipped_with_a_note(tmp_path, monkeypatch):
    from scaling_sim.data.heldout import ENVIRONMENT

    monkeypatch.setitem(ENVIRONMENT, "licences", lambda: iter(()))
    corpus = load_corpus(CorpusConfig(), tmp_path)
    assert "licences" not in corpus.splits
    assert any("licences skipped: 0 bytes" in note for note in corpus.notes)


def test_synthetic_corpus(tmp_path):
    config = CorpusConfig(source="synthetic", synthetic_tokens=2_000_000)
    corpus = load_corpus(config, tmp_path)
    assert corpus.vocab_size == 233
    assert sum(len(corpus.splits[name]) for name in ("train", "validation", "test")) >= 2_000_000
    assert max(tokens.max() for tokens in corpus.splits.values()) == 232
    other = msgspec.structs.replace(config, synthetic=SyntheticConfig(seed=1))
    assert load_corpus(other, tmp_path).hash != corpus.hash


@pytest.mark.tokenizers
def test_bpe_corpus(config, tmp_path):
    pytest.importorskip("tokenizers")
    bpe = msgspec.structs.replace(config, tokenizer="bpe", vocab_size=270)
    corpus = load_corpus(bpe, tmp_path)
    assert corpus.vocab_size == 270
    assert corpus.splits["train"].dtype == np.uint16
    assert (corpus.folder / "tokenizer.json").is_file()
    assert len(corpus.splits["train"]) < len(load_corpus(config, tmp_path).splits["train"])


# -- bad input ---------------------------------------------------------------------------------------------------


def test_empty_corpus(tmp_path):
    with pytest.raises(DataError, match="holds no text"):
        load_corpus(write_documents(tmp_path, ["", ""]), tmp_path / "cache")


def test_too_few_documents_for_every_split(tmp_path):
    with pytest.raises(DataError, match=r"1 documents left none for .* smaller piece_bytes"):
        load_corpus(write_documents(tmp_path, ["only one"]), tmp_path / "cache")
    with pytest.raises(DataError, match="give more synthetic_tokens"):
        load_corpus(CorpusConfig(source="synthetic", synthetic_tokens=10), tmp_path / "cache")


def test_missing_files(tmp_path):
    with pytest.raises(DataError, match="no file matches"):
        load_corpus(CorpusConfig(source="files", paths=(str(tmp_path / "*.txt"),)), tmp_path)
    with pytest.raises(DataError, match="needs paths"):
        load_corpus(CorpusConfig(source="files"), tmp_path)


def test_unwritable_cache(config, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match="cannot create the folder"):
        load_corpus(config, tmp_path / "file" / "cache")

    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refused)
    with pytest.raises(ConfigError, match=r"cannot write in the cache folder.*Permission denied"):
        load_corpus(config, tmp_path / "cache")


def test_full_disk_leaves_no_half_corpus(config, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("scaling_sim.data.shards.sync_file", full)
    with pytest.raises(ConfigError, match="No space left"):
        load_corpus(config, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_no_corpus_where_one_is_opened(tmp_path):
    with pytest.raises(DataError, match="holds no corpus"):
        open_corpus(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation_fraction": 0.0}, "must be positive with a sum below 1"),
        ({"validation_fraction": 0.6, "test_fraction": 0.5}, "sum below 1"),
        ({"paths": ["a.txt"]}, "paths belong to source"),
        ({"vocab_size": 300}, "the byte tokenizer has 256 ids"),
        ({"source": "synthetic", "tokenizer": "bpe"}, "synthetic language has its own tokens"),
        ({"held_out": {"train": ["a.txt"]}}, "'train' is taken"),
        ({"held_out": {"../escape": ["a.txt"]}}, "letters, digits"),
        ({"piece_bytes": 0}, "piece_bytes must be at least 1"),
        ({"source": "stdlb"}, "Invalid enum value 'stdlb'"),
        ({"tokeniser": "bytes"}, "did you mean `tokenizer`"),
        ({"synthetic": {"alpha": -1}}, "alpha must lie in"),
    ],
)
def test_bad_configuration(settings, message):
    with pytest.raises(ConfigError, match=message):
        to_record(settings, CorpusConfig)
