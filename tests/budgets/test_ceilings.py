"""Sizes that keep the code liveable: a file fits in a head, a function on a screen."""

from __future__ import annotations

import ast
from collections.abc import Iterator

FILE_LINES = 600
FUNCTION_LINES = 60
NESTING = 5

#: Files that may be longer, each with its own ceiling and the reason.
LONGER_FILES: dict[str, tuple[int, str]] = {
    "celery/app/base.py": (750, "the documented surface of Celery is one class; it delegates"),
    "celery/app/task.py": (750, "the documented surface of Task is one class"),
    "celery/backends/base.py": (750, "the base class that third-party backends derive from"),
    "celery/result.py": (750, "AsyncResult, ResultSet and GroupResult share one page of documentation"),
    "celery/schedules.py": (750, "pure tables and arithmetic of crontab, solar and interval"),
    "celery/app/defaults.py": (750, "one row for each of more than 200 settings"),
}

#: Functions that may be longer: "path:name" and the reason.
LONGER_FUNCTIONS: dict[str, tuple[int, str]] = {}

BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.TryStar, ast.Match)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def line_count(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def depth(node: ast.AST) -> int:
    """How many blocks lie in each other; an `elif` lies beside its `if`, a function in a function starts anew."""
    deepest = 0
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        is_elif = isinstance(node, ast.If) and isinstance(child, ast.If) and node.orelse == [child]
        deepest = max(deepest, depth(child) + (isinstance(child, BLOCKS) and not is_elif))
    return deepest


def test_no_file_is_too_long(root, sources):
    too_long = [
        f"{path}: {lines} lines"
        for path in sources
        if (lines := len((root / "src" / path).read_text(encoding="utf-8").splitlines()))
        > LONGER_FILES.get(path, (FILE_LINES, ""))[0]
    ]
    assert not too_long, "\n".join(["divide by duty, or argue for an entry in LONGER_FILES:", *too_long])


def test_no_function_is_too_long(sources):
    too_long = [
        f"{path}:{node.lineno} {node.name}: {line_count(node)} lines"
        for path, tree in sources.items()
        for node in functions(tree)
        if line_count(node) > LONGER_FUNCTIONS.get(f"{path}:{node.name}", (FUNCTION_LINES, ""))[0]
    ]
    assert not too_long, "\n".join(["give a step a name of its own:", *too_long])


def test_no_function_is_nested_too_deep(sources):
    too_deep = [
        f"{path}:{node.lineno} {node.name}: {depth(node)} blocks in each other"
        for path, tree in sources.items()
        for node in functions(tree)
        if depth(node) > NESTING
    ]
    assert not too_deep, "\n".join(["return early, or give the inner part a name:", *too_deep])
