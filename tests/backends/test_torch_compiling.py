"""The cache of compiled code, and room for the shapes of a sweep."""

import os
from pathlib import Path

import pytest

from scaling_sim_torch.compiling import FOLDERS, MOST_SHAPES, SETTING, cache_folders, note, noted, prepare_compilers

pytestmark = pytest.mark.torch


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    for variable in (SETTING, *FOLDERS):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))


def test_the_cache_is_the_users_and_the_setting_moves_it(monkeypatch, tmp_path):
    assert cache_folders()["TRITON_CACHE_DIR"] == str(tmp_path / "user" / "scaling_sim" / "triton")
    monkeypatch.setenv(SETTING, str(tmp_path / "mine"))
    assert cache_folders()["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "mine" / "inductor")
    assert Path(cache_folders()["TORCHINDUCTOR_CACHE_DIR"]).is_dir()


def test_a_folder_that_cannot_be_made_leaves_the_compilers_defaults(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv(SETTING, str(tmp_path / "file"))
    assert cache_folders() == {}


def test_what_the_user_set_is_kept_and_workers_inherit_the_rest(monkeypatch, tmp_path):
    pytest.importorskip("torch")
    from torch._dynamo import config

    monkeypatch.setenv("TRITON_CACHE_DIR", "/theirs")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # so that it is removed again
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    with config.patch(recompile_limit=8, accumulated_recompile_limit=256):  # monkeypatch would delete them at the end
        prepare_compilers()
        assert os.environ["TRITON_CACHE_DIR"] == "/theirs"
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "user" / "scaling_sim" / "inductor")
        assert config.recompile_limit == MOST_SHAPES


def test_what_was_noted_is_known_again_and_nothing_else(monkeypatch, tmp_path):
    assert noted("a product", below=8) is None
    note("a product", 5)
    assert noted("a product", below=8) == 5
    assert noted("a product", below=5) is None, "a number that cannot be"
    assert noted("another", below=8) is None
    for file in (tmp_path / "user").rglob("*.txt"):
        file.write_text("spoilt")
    assert noted("a product", below=8) is None
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv(SETTING, str(tmp_path / "file"))
    note("a product", 5)  # nowhere to write: nothing happens
    assert noted("a product", below=8) is None
