"""Laws of installed packages: found by their entry points, left out aloud where they are broken."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from scaling_sim.errors import LawWarning
from scaling_sim.laws import get_law, law_names, registry
from scaling_sim.laws.power_n import PowerN


class Installed(PowerN):
    """A law that another package brings."""

    name = "installed-law"


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTERED", dict(registry._REGISTERED))


def entry(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, registry.ENTRY_POINT_GROUP)


@pytest.mark.usefixtures("install")
def test_an_installed_law_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    point = entry("installed-law", f"{__name__}:Installed")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == "scaling_sim.laws" else [])
    assert isinstance(get_law("installed-law"), Installed)
    assert law_names()[-1] == "installed-law"


@pytest.mark.usefixtures("install")
@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("absent-law", "no_such_package:Law", "No module named 'no_such_package'"),
        ("other-name", f"{__name__}:Installed", "whose name is 'other-name'"),
        ("no-law", "pathlib:Path", "subclass of Law"),
        ("chinchilla", f"{__name__}:Installed", "belongs to one of ours"),
    ],
)
def test_a_broken_one_warns_and_is_left_out(
    name: str, value: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry(name, value)])
    with pytest.warns(LawWarning, match=reason):
        assert (name in law_names()) == (name == "chinchilla")
    assert not isinstance(get_law("chinchilla"), Installed)


def test_an_entry_point_on_disk(tmp_path: Path) -> None:
    """A real distribution in another process: what `pip install` leaves."""
    (tmp_path / "acme_laws.py").write_text(
        "from scaling_sim.laws.power_n import PowerN\nclass Acme(PowerN):\n    name = 'acme'\n"
    )
    info = tmp_path / "acme_laws-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-laws\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[scaling_sim.laws]\nacme = acme_laws:Acme\n")
    code = f"import sys; sys.path.append({str(tmp_path)!r}); import scaling_sim as ss; print(ss.get_law('acme').name)"
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert made.stdout.strip() == "acme"
