"""The repository stands alone, and its tests test."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

#: Where a person or a workplace keeps files; whoever clones the repository has none of them.
ELSEWHERE = re.compile(r"(?<![\w.~/-])/(?:work|farm|root|tmp|home/\w+|Users/\w+)/")

ASSERTING_CALL = re.compile(r"assert|expect|raises|warns|fail$|deprecated_call")


def test_nothing_refers_to_a_path_outside_of_it(root, tracked):
    references = [
        f"{path.relative_to(root)}:{number}: {line.strip()[:100]}"
        for path in tracked
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1)
        if ELSEWHERE.search(line)
    ]
    assert not references, "\n".join(references)


@pytest.mark.parametrize(
    ("line", "found"),
    [("cd /{}/main", True), ("'/{}/x.json'", True), ("frame{}/x", False), ("~/{}/x", False), ("see docs/{}/x", False)],
)
def test_paths_elsewhere_are_recognised(line, found):
    # Put together here, so that this file refers to none itself.
    assert bool(ELSEWHERE.search(line.format("work"))) is found


def called_names(function: ast.AST) -> set[str]:
    calls = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
    return {call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "") for call in calls}


def asserting_functions(*trees: ast.Module) -> set[str]:
    """Names of the functions of some files that assert, by themselves or through another one of these files."""
    functions = [
        node
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    asserting = {
        each.name
        for each in functions
        if any(isinstance(node, ast.Assert) for node in ast.walk(each))
        or any(ASSERTING_CALL.search(name) for name in called_names(each))
    }
    while more := {each.name for each in functions if called_names(each) & asserting} - asserting:
        asserting |= more
    return asserting


@cache
def helpers(folder: Path) -> list[ast.Module]:
    """What the tests of a folder share: a wait that fails when its time is over asserts too."""
    files = sorted(path for path in folder.glob("*.py") if not path.name.startswith("test_"))
    return [ast.parse(path.read_text(encoding="utf-8")) for path in files]


def test_every_test_asserts_something(root, tracked):
    hollow = []
    for path in tracked:
        if path.name.startswith("test_") and path.suffix == ".py":
            tree = ast.parse(path.read_text(encoding="utf-8"))
            asserting = asserting_functions(tree, *helpers(path.parent))
            hollow += [
                f"{path.relative_to(root)}:{node.lineno} {node.name}"
                for node in ast.walk(tree)
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                and node.name.startswith("test_")
                and node.name not in asserting
            ]
    assert not hollow, "\n".join(hollow)
