"""The README keeps its promises: its example runs as printed, its tree is the tree."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_runs_as_printed(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    statements = [line for line in code.splitlines() if line.strip() and not line.startswith("#")]
    assert len(statements) <= 15
    outcome = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stderr
    assert "converged: R-hat" in outcome.stdout
    assert "contradict each other at 1.12e+04 PF-days" in outcome.stdout


def test_every_folder_of_the_tree_exists() -> None:
    tree = re.findall(r"```text\n(.*?)```", TEXT, flags=re.DOTALL)[0]
    parent, named = "", set()
    for line in tree.splitlines():
        folder = line.split()[0]
        indented = line.startswith("  ")
        parent = parent if indented else folder
        named.add(parent + folder if indented else folder)
    assert all((ROOT / name).is_dir() for name in named)
    packages = {f"scaling_sim/{path.parent.name}/" for path in (ROOT / "scaling_sim").glob("*/__init__.py")}
    assert packages <= named


def test_every_link_and_picture_exists() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []
