import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from scaling_sim.errors import CheckpointWarning, StoreError
from scaling_sim.training.checkpoint import (
    checkpoints,
    read_checkpoint,
    read_manifest,
    sound_checkpoints,
    sweep_orphans,
    write_checkpoint,
)


def state(value: float) -> dict[str, np.ndarray]:
    return {"params.w": np.full((2, 3), value, np.float32), "ids": np.arange(2), "empty": np.zeros((2, 0, 4))}


def write(folder: Path, step: int) -> Path:
    return write_checkpoint(folder, step, ("a", "b"), state(step), b'{"step": %d}' % step, origin="numpy-float32")


def test_reads_back_what_was_written(tmp_path: Path) -> None:
    manifest, arrays, loop = read_checkpoint(write(tmp_path, 7))
    assert (manifest.step, manifest.run_ids, manifest.origin, loop) == (7, ("a", "b"), "numpy-float32", b'{"step": 7}')
    for name, array in state(7).items():
        np.testing.assert_array_equal(arrays[name], array)
        assert arrays[name].dtype == array.dtype


def test_keeps_the_two_newest_and_nothing_else(tmp_path: Path) -> None:
    for step in (1, 20, 300):
        write(tmp_path, step)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-0000000300", "step-0000000020"]
    assert len(list(tmp_path.iterdir())) == 2


def test_the_same_step_can_be_written_again(tmp_path: Path) -> None:
    write(tmp_path, 5)
    path = write(tmp_path, 5)
    assert read_manifest(path).step == 5
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["state.safetensors", "loop.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_one_is_set_aside_aloud_and_the_one_before_used(tmp_path: Path, name: str, damage: str) -> None:
    write(tmp_path, 1)
    broken = write(tmp_path, 2) / name
    data = broken.read_bytes()
    if damage == "remove":
        broken.unlink()
    else:
        broken.write_bytes(data[:-1] if damage == "truncate" else data[:9] + bytes([data[9] ^ 1]) + data[10:])
    with pytest.warns(CheckpointWarning, match="set aside"):
        (path, manifest), *rest = sound_checkpoints(tmp_path)
    assert (manifest.step, rest) == (1, [])
    assert read_checkpoint(path)[1]["params.w"][0, 0] == 1
    assert any(entry.name.startswith("corrupt-step-0000000002") for entry in tmp_path.iterdir())
    assert len(list(sound_checkpoints(tmp_path))) == 1  # quiet the second time


def test_orphans_of_interrupted_writes_are_never_read_and_swept(tmp_path: Path) -> None:
    whole = write(tmp_path, 3)
    orphan = tmp_path / ".tmp-0123"
    orphan.mkdir()
    (orphan / "state.safetensors").write_bytes(b"half")
    assert [path for path, _ in sound_checkpoints(tmp_path)] == [whole]
    assert sweep_orphans(tmp_path) == 1
    assert list(tmp_path.iterdir()) == [whole]


def test_a_full_disk_leaves_the_old_checkpoint_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = write(tmp_path, 1)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreError, match=r"No space left.*run the same command again"):
        write(tmp_path, 2)
    assert [path for path, _ in sound_checkpoints(tmp_path)] == [old]
    assert list(tmp_path.iterdir()) == [old]


def test_a_folder_that_cannot_be_made_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot write a checkpoint"):
        write(tmp_path / "file" / "cohort", 1)


def test_missing_safetensors_names_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(StoreError, match="pip install safetensors"):
        write(tmp_path, 1)


def test_kill_9_at_any_moment_leaves_no_torn_checkpoint(tmp_path: Path) -> None:
    """A process that writes checkpoints without pause is killed ten times; every directory left is whole."""
    script = f"""
import itertools, pathlib
import numpy as np
from scaling_sim.training.checkpoint import checkpoints, write_checkpoint
folder = pathlib.Path({str(tmp_path)!r})
first = int(checkpoints(folder)[0].name[5:]) + 1 if checkpoints(folder) else 0
for step in itertools.count(first):
    write_checkpoint(folder, step, ("a",), {{"params.w": np.full(200_000, step, np.float32)}}, b"{{}}")
"""
    root = Path(__file__).resolve().parents[2]
    rng, newest = random.Random(0), -1
    for _ in range(10):
        writer = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(root)})
        deadline = time.monotonic() + 20
        while (
            not checkpoints(tmp_path) or int(checkpoints(tmp_path)[0].name[5:]) <= newest
        ) and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.05))
        writer.kill()
        writer.wait()
        (path, manifest), *_ = sound_checkpoints(tmp_path)  # a torn one would warn, and warnings are errors
        assert manifest.step > newest
        newest = manifest.step
        assert (read_checkpoint(path)[1]["params.w"] == newest).all()
    sweep_orphans(tmp_path)
    assert len(list(tmp_path.iterdir())) <= 3


def _newest(folder: Path) -> int:
    return max((int(path.name[5:]) for path in checkpoints(folder)), default=-1)
