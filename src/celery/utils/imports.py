"""Finding modules and the objects in them."""
from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from importlib import import_module, reload
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import ModuleType

__all__ = (
    "NotAPackage",
    "cwd_in_path",
    "find_module",
    "gen_task_name",
    "import_from_cwd",
    "instantiate",
    "load_extension_class_names",
    "load_extension_classes",
    "module_file",
    "qualname",
    "reload_from_cwd",
    "symbol_by_name",
)


class NotAPackage(Exception):  # noqa: N818 - the documented name
    """A dotted name goes through a module that is no package."""


def qualname(obj: Any) -> str:
    """Return ``module.name`` of a class or function, or of the class of an instance."""
    if not hasattr(obj, "__name__") and hasattr(obj, "__class__"):
        obj = obj.__class__
    name = getattr(obj, "__qualname__", obj.__name__)
    return name if "." in name and name.startswith(obj.__module__) else f"{obj.__module__}.{name}"


def symbol_by_name(
    name: Any,
    aliases: Mapping[str, str] | None = None,
    imp: Callable[..., Any] | None = None,
    package: str | None = None,
    sep: str = ".",
    default: Any = None,
    **kwargs: Any,
) -> Any:
    """Return the object that a name such as ``proj.mod:attr`` or ``proj.mod.attr`` stands for.

    Args:
        name: The name; anything but a str is returned as it is.
        aliases: Short names and what they stand for.
        imp: Imports a module instead of `importlib.import_module`.
        package: What a relative name is relative to.
        sep: What separates the parts.
        default: Returned instead of an error, if not None.
        kwargs: More arguments for ``imp``.

    Raises:
        ImportError: There is no such module.
        AttributeError: The module has no such attribute.
    """
    if not isinstance(name, str):
        return name
    name = (aliases or {}).get(name) or name
    separator = ":" if ":" in name else sep
    module_name, _, attribute = name.rpartition(separator)
    if not module_name:
        module_name, attribute = (package, attribute) if package else (attribute, "")
    try:
        try:
            module = (imp or import_module)(module_name, package=package, **kwargs)
        except ValueError as exc:
            raise ValueError(f"cannot import {name!r}: {exc}") from exc
        return getattr(module, attribute) if attribute else module
    except (ImportError, AttributeError):
        if default is None:
            raise
        return default


def instantiate(name: Any, *args: Any, **kwargs: Any) -> Any:
    """Call the class (or function) of that name."""
    return symbol_by_name(name)(*args, **kwargs)


@contextmanager
def cwd_in_path() -> Iterator[None]:
    """Let modules of the working directory be imported inside the block."""
    try:
        cwd = os.getcwd()
    except FileNotFoundError:
        cwd = None
    if cwd is None or cwd in sys.path:
        yield
        return
    sys.path.insert(0, cwd)
    try:
        yield
    finally:
        if cwd in sys.path:
            sys.path.remove(cwd)


def find_module(module: str, path: str | None = None, imp: Callable[[str], Any] | None = None) -> Any:
    """Tell whether there is a module, looking in the working directory too.

    Args:
        module: Dotted name. The packages that it is in are imported.
        path: Not used; part of the documented signature.
        imp: Imports the packages instead of `importlib.import_module`.

    Returns:
        The import system's description of the module, or None.

    Raises:
        NotAPackage: Part of the name is a module without submodules.
        ImportError: A package that it is in is missing.
    """
    del path
    with cwd_in_path():
        parent, _, _ = module.rpartition(".")
        if parent and not hasattr((imp or import_module)(parent), "__path__"):
            raise NotAPackage(parent)
        return find_spec(module)


def import_from_cwd(module: str, imp: Callable[..., Any] | None = None, package: str | None = None) -> Any:
    """Import a module, looking in the working directory too."""
    with cwd_in_path():
        return (imp or import_module)(module, package=package)


def reload_from_cwd(module: ModuleType, reloader: Callable[[ModuleType], ModuleType] | None = None) -> ModuleType:
    """Load the code of an imported module again, looking in the working directory too."""
    with cwd_in_path():
        return (reloader or reload)(module)


def module_file(module: ModuleType) -> str:
    """Return the path of a module's source."""
    name = module.__file__ or ""
    return name[:-1] if name.endswith((".pyc", ".pyo")) else name


def gen_task_name(app: Any, name: str, module_name: str | None) -> str:
    """Return the name of a task that was given none: module and function.

    The program itself is named after the application, if that has a name: a worker imports it under another one.
    """
    module_name = module_name or "__main__"
    if module_name == "__main__":
        module_name = app.main or module_name
    return ".".join(part for part in (module_name, name) if part)


def load_extension_class_names(namespace: str) -> Iterator[tuple[str, str]]:
    """Yield name and object path of every entry point in a group."""
    from importlib.metadata import entry_points  # slow to import, for those that ask for plug-ins only

    for entry_point in entry_points(group=namespace):
        yield entry_point.name, entry_point.value


def load_extension_classes(namespace: str) -> Iterator[tuple[str, Any]]:
    """Yield name and object of every entry point in a group; what cannot be imported is warned about."""
    import warnings

    for name, path in load_extension_class_names(namespace):
        try:
            cls = symbol_by_name(path)
        except (ImportError, SyntaxError, AttributeError) as exc:
            warnings.warn(f"Cannot load the {namespace} extension {name} ({path}): {exc!r}", stacklevel=2)
        else:
            yield name, cls
