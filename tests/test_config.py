from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Literal

import pytest

from scaling_sim.config import Config, config_hash, json_text, read_toml, to_record, writable_folder
from scaling_sim.errors import ConfigError


class Inner(Config, frozen=True):
    depth: int = 1
    colour: Literal["red", "green"] = "red"


class Outer(Config, frozen=True):
    name: str
    inner: Inner = Inner()
    many: tuple[Inner, ...] = ()


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"name": "x", "inner": {"depht": 2}}, "did you mean `depth`?"),
        ({"name": "x", "many": [{"colur": "red"}]}, "did you mean `colour`?"),
        ({"name": "x", "innner": {}}, "did you mean `inner`?"),
        ({"name": "x", "zzz": 1}, "known: name, inner, many"),
        ({"name": "x", "inner": {"colour": "gren"}}, "did you mean `green`?"),
        ({"name": "x", "inner": {"colour": "zzz"}}, "known: red, green"),
        ({"name": 3}, r"Expected `str`, got `int` - at `\$.name`"),
    ],
)
def test_a_mistake_is_named_with_its_path_and_a_suggestion(tree: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        to_record(tree, Outer)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        read_toml(tmp_path / "none.toml", Outer)
    (tmp_path / "broken.toml").write_text("name = ")
    with pytest.raises(ConfigError, match="not valid TOML"):
        read_toml(tmp_path / "broken.toml", Outer)


def test_the_hash_depends_on_content_alone() -> None:
    assert config_hash(Outer(name="x", inner=Inner(depth=2))) == config_hash(Outer(inner=Inner(depth=2), name="x"))
    assert config_hash(Outer(name="x")) != config_hash(Outer(name="y"))


def test_json_is_strict() -> None:
    tree = {"nan": math.nan, "up": math.inf, "down": [-math.inf], "path": Path("x"), "number": 1.5}
    assert json.loads(json_text(tree)) == {"nan": None, "up": "inf", "down": ["-inf"], "path": "x", "number": 1.5}


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot create"):
        writable_folder(tmp_path / "file" / "below")
