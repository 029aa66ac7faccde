"""The registry: names, reasons, and plug-ins that are broken, rude or fine."""

import sys
import types
from importlib.metadata import EntryPoint

import pytest

from scaling_sim.engine import registry
from scaling_sim.engine.reference import ReferenceBackend
from scaling_sim.errors import BackendUnavailable, BackendWarning, ConfigError


@pytest.fixture
def install(monkeypatch):
    """Install plug-ins for one test: name → module attributes."""

    def add(name, value):
        module = types.ModuleType(f"plugin_{name}")
        module.BACKEND = value
        monkeypatch.setitem(sys.modules, module.__name__, module)
        points.append(EntryPoint(name, f"{module.__name__}:BACKEND", registry.ENTRY_POINT_GROUP))

    points = []
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    add.points = points
    return add


def info(name):
    return next(one for one in registry.backends() if one.name == name)


def test_reference_is_always_available():
    assert registry.get_backend("numpy").name == "numpy"
    assert info("numpy") == registry.BackendInfo("numpy", True, None, ("cpu",))


def test_our_four_are_listed_whatever_is_installed():
    assert [one.name for one in registry.backends()][:4] == ["numba", "torch", "cupy", "numpy"]
    for one in registry.backends():
        assert one.available == (one.reason is None)
        assert one.available == bool(one.devices)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"unknown backend 'jax'.*numba, torch, cupy, numpy"):
        registry.get_backend("jax")


def test_plugin_is_found(install):
    plugin = ReferenceBackend()
    plugin.name = "mine"
    install("mine", plugin)
    assert registry.get_backend("mine") is plugin
    assert info("mine").devices == ("cpu",)


def test_broken_plugin_warns_and_is_listed_with_its_reason(install):
    install.points.append(EntryPoint("broken", "no_such_module_anywhere:BACKEND", registry.ENTRY_POINT_GROUP))
    with pytest.warns(BackendWarning, match=r"'broken'.*no_such_module_anywhere"):
        broken = info("broken")
    assert not broken.available
    assert "no_such_module_anywhere" in broken.reason
    with (
        pytest.warns(BackendWarning, match="broken"),
        pytest.raises(BackendUnavailable, match="no_such_module_anywhere"),
    ):
        registry.get_backend("broken")


def test_plugin_that_is_no_backend(install):
    install("wrong", object())
    assert "does not follow" in info("wrong").reason
    with pytest.raises(BackendUnavailable, match="does not follow"):
        registry.get_backend("wrong")


def test_plugin_that_breaks_when_asked(install):
    class Rude(ReferenceBackend):
        def devices(self):
            raise OSError("driver gone")

    class Ruder(ReferenceBackend):
        def why_unavailable(self):
            raise OSError("library gone")

    install("rude", Rude())
    install("ruder", Ruder())
    assert "driver gone" in info("rude").reason
    assert "library gone" in info("ruder").reason


def test_plugin_cannot_take_our_name(install):
    install("numpy", object())
    with pytest.warns(BackendWarning, match="name is taken"):
        assert registry.get_backend("numpy").name == "numpy"


def test_missing_library_is_a_reason_not_an_error(monkeypatch):
    monkeypatch.setitem(registry.OWN_BACKENDS, "cupy", "a_package_that_is_missing:BACKEND")
    assert "a_package_that_is_missing" in info("cupy").reason
    with pytest.raises(BackendUnavailable, match="'cupy' is not available"):
        registry.get_backend("cupy")
