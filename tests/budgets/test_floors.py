"""Imports go down the floors of the house, in no circle, and from inside functions only where that was agreed.

    5  bin/  apps/  web/  contrib/  fixups/                             people and frameworks
    4  worker/  concurrency/  beat  events/  bootsteps                  long-running processes
    3  app/  canvas/  result  loaders/  _state  registry                the application and what users call
    2  brokers/  backends/                                              drivers
    1  wire/  schedules  security/  app/defaults  app/routes            data to data
    0  states  exceptions  signals  utils/  platforms  local            leaves

Imports inside functions count as much as those on top of a file; those under TYPE_CHECKING count
for nothing, as they do when the program runs.
"""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from typing import NamedTuple

import pytest

#: The longest prefix decides.
FLOORS = {
    5: ("bin", "apps", "web", "contrib", "fixups", "__main__"),
    4: ("worker", "concurrency", "beat", "events", "bootsteps"),
    # `from celery import current_app` is a call upstairs for whoever lives below the application.
    3: ("", "app", "canvas", "result", "loaders", "_state", "registry"),
    2: ("brokers", "backends"),
    1: ("wire", "schedules", "security", "app.defaults", "app.routes"),
    0: ("states", "exceptions", "signals", "utils", "platforms", "local"),
}
FLOOR_OF = {f"celery.{name}".rstrip("."): floor for floor, names in FLOORS.items() for name in names}

#: Who may import modules of the package inside a function, beside the `__init__` of a package, which may load its
#: names on first use; and why.
LOCAL_IMPORTS = {
    "celery.__main__": "a command must start before everything is imported",
    "celery.bin": "a command must start before everything is imported",
    "celery.app.brokers": "the registry of brokers: an application loads only the driver that its URL names",
    "celery.app.backends": "the registry of result backends, likewise",
    "celery.backends.redis": "its writer runs on asyncio, which only workers load; the rest serves everybody",
    "celery.contrib.pytest": "every pytest run in the environment loads it, few use its fixtures",
}


class Import(NamedTuple):
    importer: str
    imported: str
    line: int
    inside_function: bool
    #: whether the importer is the `__init__` of a package
    by_package: bool


def module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def prefixes(module: str) -> Iterator[str]:
    """The module and its parents, longest first."""
    while module:
        yield module
        module = module.rpartition(".")[0]


def floor_of(module: str) -> int | None:
    """The floor by the longest known prefix; None for a module whose place nobody has decided."""
    known = next((prefix for prefix in prefixes(module) if prefix in FLOOR_OF), "celery")
    return None if known == "celery" != module else FLOOR_OF[known]


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).removeprefix("typing.") == "TYPE_CHECKING"


def import_nodes(node: ast.AST, *, inside: bool = False) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Every import that may be executed, and whether a function does it."""
    children = node.orelse if is_type_checking(node) else ast.iter_child_nodes(node)
    for child in children:
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, inside
        else:
            yield from import_nodes(child, inside=inside or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))


def targets(node: ast.Import | ast.ImportFrom, importer: str, *, is_package: bool, modules: set[str]) -> set[str]:
    """The modules of the package that one import statement names."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names if alias.name.split(".")[0] == "celery"}
    base = node.module or ""
    if node.level:
        parts = importer.split(".")
        above = parts[: len(parts) - node.level + is_package]
        base = ".".join([*above, base]).rstrip(".")
    if base.split(".")[0] != "celery":
        return set()
    return {name if (name := f"{base}.{alias.name}") in modules else base for alias in node.names}


@pytest.fixture(scope="module")
def imports(sources) -> list[Import]:
    modules = {module_name(path) for path in sources}
    return [
        Import(importer, imported, node.lineno, inside, is_package)
        for path, tree in sources.items()
        for importer, is_package in [(module_name(path), path.endswith("/__init__.py"))]
        for node, inside in import_nodes(tree)
        for imported in targets(node, importer, is_package=is_package, modules=modules)
        if imported != importer
    ]


def test_every_module_has_a_floor(sources):
    homeless = [path for path in sources if floor_of(module_name(path)) is None]
    assert not homeless, "decide their floor in FLOORS"


def test_imports_go_down(imports):
    upstairs = [
        f"{each.importer}:{each.line} (floor {floor_of(each.importer)}) imports {each.imported} "
        f"(floor {floor_of(each.imported)})"
        for each in imports
        if each.importer != "celery" and (floor_of(each.imported) or 0) > (floor_of(each.importer) or 0)
    ]
    assert not upstairs, "\n".join(["reach what is above through the app that you were given:", *upstairs])


def test_no_imports_in_a_circle(imports):
    graph: dict[str, set[str]] = {}
    for each in imports:
        # The top package names what lies above only to load it on first use.
        if each.importer != "celery":
            graph.setdefault(each.importer, set()).add(each.imported)
    try:
        order = list(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]), pytrace=False)
    assert set(order) >= set(graph)


def test_functions_import_modules_of_ours_only_where_agreed(imports):
    hidden = [
        f"{each.importer}:{each.line} imports {each.imported}"
        for each in imports
        if each.inside_function and not each.by_package and LOCAL_IMPORTS.keys().isdisjoint(prefixes(each.importer))
    ]
    assert not hidden, "\n".join(["import on top of the file, or argue for an entry in LOCAL_IMPORTS:", *hidden])


def test_a_pool_child_never_imports_the_worker(imports):
    edges: dict[str, set[str]] = {}
    for each in imports:
        # Importing a module runs its packages first.
        edges.setdefault(each.importer, set()).update(set(prefixes(each.imported)) - {"celery"})
    reached: set[str] = set()
    waiting = ["celery.concurrency.child", "celery.concurrency"]
    while waiting:
        module = waiting.pop()
        if module not in reached:
            reached.add(module)
            waiting.extend(edges.get(module, ()))
    assert not [module for module in sorted(reached) if module.startswith("celery.worker")]
