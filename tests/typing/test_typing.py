"""mypy --strict and pyright agree with the cases beside this file, line by line (API-022).

A case file is ordinary code: `assert_type` says what an expression is, and a comment ``# error`` at the end of a line
says that the line must be refused.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).parent / "cases"
FILES = sorted(path.name for path in CASES.glob("*.py"))
REFUSED = re.compile(r"# error$")

pytestmark = pytest.mark.timeout(300)


def refused(name: str) -> set[int]:
    lines = (CASES / name).read_text(encoding="utf-8").splitlines()
    return {number for number, line in enumerate(lines, 1) if REFUSED.search(line)}


def run(*command: str, **environment: str) -> str:
    environ = {**os.environ, **environment}
    ended = subprocess.run(command, cwd=CASES, env=environ, capture_output=True, text=True, check=False)
    assert ended.returncode in (0, 1), ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def mypy(tmp_path_factory) -> dict[str, dict[int, str]]:
    """Messages of mypy, by file and line."""
    cache = os.environ.get("MYPY_CACHE_DIR") or str(tmp_path_factory.mktemp("mypy"))
    source = str(Path(__file__).resolve().parents[2] / "src")
    shown = run(
        *(sys.executable, "-m", "mypy", "--strict", "--config-file=", "--follow-imports=silent", "--no-pretty"),
        *("--hide-error-context", "--cache-dir", cache, *FILES),
        MYPYPATH=source,
    )
    found: dict[str, dict[int, str]] = {name: {} for name in FILES}
    for name, line, message in re.findall(r"^(\w+\.py):(\d+): error: (.*)$", shown, re.MULTILINE):
        found[name][int(line)] = message
    return found


@pytest.fixture(scope="module")
def pyright() -> dict[str, dict[int, str]]:
    """Messages of pyright, by file and line."""
    shown = run(sys.executable, "-m", "pyright", "--outputjson", *FILES, PYRIGHT_PYTHON_IGNORE_WARNINGS="1")
    found: dict[str, dict[int, str]] = {name: {} for name in FILES}
    for each in json.loads(shown)["generalDiagnostics"]:
        # The base settings also warn of expressions without an effect, which the cases are full of.
        if each["severity"] == "error":
            found[Path(each["file"]).name][each["range"]["start"]["line"] + 1] = each["message"]
    return found


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
@pytest.mark.parametrize("name", FILES)
def test_the_checker_refuses_the_marked_lines_and_no_other(checker, name, request):
    found = request.getfixturevalue(checker)[name]
    expected = refused(name)
    too_much = [f"{name}:{line}: {message}" for line, message in found.items() if line not in expected]
    assert not too_much, "\n".join(too_much)
    assert not expected - found.keys(), "these lines should have been refused"
