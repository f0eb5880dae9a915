"""What the README and the pages say is so: the demo's output, the commands, the tests that prove a promise."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
GUARANTEES = (ROOT / "docs" / "guarantees.md").read_text()
NOT_PROVEN = "not proven yet"

#: What differs from run to run, in the order of replacement.
VARYING = [
    (r".* SecurityWarning: .*\n.*\n", ""),  # to root only
    (r"(?m)^Linux-.*$", "<platform and time>"),
    (r"(?m)^\[[\d-]+ [\d:,]+: ", "[<time>: "),
    (r"celery@\S+", "celery@<host>"),
    (r"proj:0x[0-9a-f]+", "proj:<id>"),
    (r"sqlite:///\S*?/examples", "sqlite:///<folder>/examples"),
    (r"'[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}'", "'<task id>'"),
    (r"concurrency: \d+", "concurrency: <n>"),
    (r"(all of them|\d+) could (not )?be read( \(they test bad encodings\))?\.", "<so many> could be read."),
    (r"[\d,]+\.?\d*(?= tasks|/s| s:| words| lines| files| Python files)", "<n>"),
    (r"(?m)^  \d+/\d+$", "  <n>/<n>"),
]


def without_what_varies(output):
    for pattern, replacement in VARYING:
        output = re.sub(pattern, replacement, output)
    return output.strip().splitlines()


@pytest.mark.timeout(120)
def test_the_demo_says_what_the_readme_shows(tmp_path):
    for folder in ("examples", "scripts"):
        ignored = shutil.ignore_patterns("__pycache__", "celery.sqlite*")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CELERY")}
    environment |= {"PYTHON": sys.executable, "CELERY": str(Path(sys.executable).with_name("celery"))}
    ended = subprocess.run(
        [tmp_path / "scripts" / "demo.sh"], env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    shown = README.partition("<!-- demo -->\n```\n")[2].partition("```\n")[0]
    assert without_what_varies(ended.stdout) == without_what_varies(shown)


def test_the_readmes_make_commands_exist():
    targets = set(re.findall(r"(?m)^\.PHONY: (\w+)", (ROOT / "Makefile").read_text()))
    named = set(re.findall(r"(?:`|^    |=\w+ )make (\w+)", README, re.MULTILINE))
    assert {"demo", "test", "bench"} <= named <= targets


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/internals.md", "docs/guarantees.md"])
def test_links_lead_somewhere(page):
    path = ROOT / page
    targets = re.findall(r"\]\(([^)#:]+)\)", path.read_text())
    assert [target for target in targets if not (path.parent / target).exists()] == []


@pytest.mark.parametrize("page", ["internals.md", "guarantees.md"])
def test_files_that_the_pages_name_exist(page):
    named = re.findall(r"`([\w/]+\.(?:py|sql|lua))`", (ROOT / "docs" / page).read_text())
    places = [ROOT / "src" / "celery", ROOT / "tests", ROOT]
    assert named
    assert [name for name in named if not any((place / name).is_file() for place in places)] == []


def functions(path):
    """Names of all functions of a file."""
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_the_tests_that_the_guarantees_name_exist():
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", GUARANTEES)
    assert named
    known = {file: functions(ROOT / "tests" / file) for file, _ in named if (ROOT / "tests" / file).is_file()}
    assert [f"{file}::{name}" for file, name in named if name not in known.get(file, ())] == []


def test_every_promise_names_its_proof():
    promises_only = GUARANTEES.partition("## Measured in full size")[0]
    rows = [line.strip("|").split("|") for line in promises_only.splitlines() if line.startswith("|")]
    promises = [cells for cells in rows if cells[-1].strip() not in ("proof", "---")]
    assert promises
    assert [cells[0] for cells in promises if "::" not in cells[-1] and NOT_PROVEN not in cells[-1]] == []
