"""The linter and the type checker are content, with the settings of pyproject.toml."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "command",
    [
        pytest.param(
            ["ruff", "check", "--quiet", "--output-format=concise", "src", "tests", "benchmarks", "scripts"], id="ruff"
        ),
        pytest.param(["mypy", "src", "benchmarks", "scripts"], id="mypy"),
    ],
)
def test_static_checks_find_nothing(command, root):
    ended = subprocess.run([sys.executable, "-m", *command], cwd=root, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
