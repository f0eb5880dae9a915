"""`BaseLoader`: finds an application's configuration, imports its task modules, and has hooks for a worker's life.

A loader knows three sources of modules: the *built-in* ones, those that the settings ``imports`` and ``include`` name,
and those that *autodiscovery* finds, ``tasks`` in every package of a list. Everything imported for its tasks is noted
in `BaseLoader.task_modules`. While a name that a user wrote is being imported, the current directory is on ``sys.path``
(CONF-027).
"""

from __future__ import annotations

import importlib
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from celery import signals
from celery.loaders.cmdline import TYPED_VALUE, parse_settings
from celery.utils.collections import force_mapping
from celery.utils.imports import NotAPackage, find_module, import_from_cwd, symbol_by_name

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterable, Mapping
    from types import ModuleType

__all__ = ("BaseLoader",)

_autodiscovering = False


class BaseLoader:
    """Base of loaders; applications may bring their own (CONF-028).

    Args:
        app: The application to load for.
        **kwargs: Ignored; accepted because the documented signature has it.
    """

    builtin_modules: frozenset[str] = frozenset()
    configured = False
    override_backends: Mapping[str, str] = {}
    worker_initialized = False

    _conf: Mapping[str, Any] | None = None
    _configuration_read = False

    def __init__(self, app: Any, **kwargs: Any) -> None:  # noqa: ARG002  documented signature
        self.app = app
        self.task_modules: set[str] = set()

    # Hooks, for subclasses

    def now(self, utc: bool = True) -> datetime:
        """Return the time now: aware in UTC, or naive in local time if *utc* is false."""
        if utc:
            return datetime.now(UTC)
        return datetime.now()  # noqa: DTZ005  naive is what it promises

    def on_task_init(self, task_id: str, task: Any) -> None:
        """Called before a task runs."""

    def on_process_cleanup(self) -> None:
        """Called after a task ran."""

    def on_worker_init(self) -> None:
        """Called when the worker starts, after its task modules are imported."""

    def on_worker_shutdown(self) -> None:
        """Called when the worker stops."""

    def on_worker_process_init(self) -> None:
        """Called in each new child process."""

    # What a worker calls

    def init_worker(self) -> None:
        """Import the task modules and call `on_worker_init`; a second call does nothing."""
        if not self.worker_initialized:
            self.worker_initialized = True
            self.import_default_modules()
            self.on_worker_init()

    def shutdown_worker(self) -> None:
        """Call `on_worker_shutdown`."""
        self.on_worker_shutdown()

    def init_worker_process(self) -> None:
        """Call `on_worker_process_init`."""
        self.on_worker_process_init()

    # Task modules

    @property
    def default_modules(self) -> tuple[str, ...]:
        """Modules that a worker imports: the built-in ones, then ``imports``, then ``include``."""
        conf = self.app.conf
        return (*self.builtin_modules, *_as_names(conf.imports), *_as_names(conf.include))

    def import_default_modules(self) -> list[ModuleType]:
        """Send ``import_modules``, so that autodiscovery runs, then import `default_modules`.

        Raises:
            Exception: Whatever a receiver of the signal raised.
        """
        for _, response in signals.import_modules.send(sender=self.app):
            if isinstance(response, Exception):
                raise response
        return [self._import_named(module) for module in self.default_modules]

    def _import_named(self, module: str) -> ModuleType:
        try:
            return self.import_task_module(module)
        except ModuleNotFoundError as exc:
            if exc.name is None or not f"{module}.".startswith(f"{exc.name}."):
                raise  # the module is there, and what it imports is not
            conf = self.app.conf
            setting = "imports" if module in _as_names(conf.imports) else "include"
            raise ModuleNotFoundError(
                f"There is no module {exc.name!r}: the setting {setting!r} names {module!r}.",
                name=exc.name,
                path=exc.path,
            ) from None

    def import_task_module(self, module: str) -> ModuleType:
        """Import a module for the tasks in it."""
        self.task_modules.add(module)
        return self.import_from_cwd(module)

    def import_module(self, module: str, package: str | None = None) -> ModuleType:
        """Import a module; a relative name is resolved in *package*."""
        return importlib.import_module(module, package=package)

    def import_from_cwd(
        self, module: str, imp: Callable[..., Any] | None = None, package: str | None = None
    ) -> ModuleType:
        """Import a module by *imp* (`import_module`) with the current directory on ``sys.path``."""
        return cast("ModuleType", import_from_cwd(module, imp or self.import_module, package))

    def find_module(self, module: str) -> Any:
        """Return the import system's description of a module, None if there is none; looks in the working directory."""
        return find_module(module)

    def autodiscover_tasks(self, packages: Iterable[str] | None, related_name: str | None = "tasks") -> None:
        """Import ``related_name`` of each of *packages*, where it exists; see `find_related_module`."""
        found = autodiscover_tasks(packages or (), related_name)
        self.task_modules.update(module.__name__ for module in found if module is not None)

    # Configuration

    @property
    def conf(self) -> Mapping[str, Any] | None:
        """The configuration as the user wrote it; None where there is no source."""
        if self._conf is None and not self._configuration_read:
            self._conf = self.read_configuration()
            self._configuration_read = True
        return self._conf

    def config_from_object(self, obj: Any, silent: bool = False) -> bool:
        """Take the configuration from a module, class, dict or other object, or from an import path (CONF-007).

        Returns:
            True; or False, if *obj* could not be imported and *silent* is true.

        Raises:
            ImportError: If there is no such module.
            AttributeError: If the module has no such attribute.
        """
        if isinstance(obj, str):
            try:
                obj = self._import_config_object(obj)
            except (ImportError, AttributeError):
                if silent:
                    return False
                raise
        self._conf = force_mapping(obj)
        self.override_backends = self._conf.get("override_backends") or self.override_backends
        return True

    def read_configuration(self, env: str = "CELERY_CONFIG_MODULE") -> Mapping[str, Any] | None:
        """Return the module that environment variable *env* names, as a mapping; None where it is unset."""
        name = os.environ.get(env)
        return force_mapping(self._import_config_module(name)) if name else None

    def cmdline_config_parser(
        self,
        args: Iterable[str],
        namespace: str = "celery",
        re_type: re.Pattern[str] = TYPED_VALUE,
        extra_types: Mapping[str, Callable[[str], Any]] | None = None,
        override_types: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Parse settings given on the command line; see `celery.loaders.cmdline.parse_settings` (CONF-009)."""
        return parse_settings(args, namespace, re_type, extra_types, override_types)

    def _import_config_object(self, path: str) -> Any:
        if ":" in path:
            return symbol_by_name(path, imp=self.import_from_cwd)
        try:
            return self._import_config_module(path)
        except ModuleNotFoundError as exc:
            parent, dot, attribute = path.rpartition(".")
            if not dot or exc.name != path:
                raise
            return getattr(self.import_from_cwd(parent), attribute)

    def _import_config_module(self, name: str) -> ModuleType:
        _refuse_file_name(name)
        return self.import_from_cwd(name)


def _refuse_file_name(name: str) -> None:
    """Tell a user who wrote a file name where a module's belongs (CONF-026)."""
    if name.endswith(".py"):
        raise NotAPackage(f"{name!r} is the name of a file and not of a module. Did you mean {name[:-3]!r}?")


def _as_names(value: Any) -> Iterable[str]:
    """Return names of modules as given by a setting: a sequence, one string, or None."""
    return (value,) if isinstance(value, str) else value or ()


def autodiscover_tasks(packages: Iterable[str], related_name: str | None = "tasks") -> list[ModuleType | None]:
    """Import the related module of each package; a call from inside one of these imports returns nothing (CONF-029)."""
    global _autodiscovering  # noqa: PLW0603  re-entrance is a property of the process's import system
    if _autodiscovering:
        return []
    _autodiscovering = True
    try:
        return [find_related_module(package, related_name) for package in packages]
    finally:
        _autodiscovering = False


def find_related_module(package: str, related_name: str | None) -> ModuleType | None:
    """Import ``package.related_name``.

    Args:
        package: Name of a package, or of a class inside one: the path of a Django AppConfig.
        related_name: Name of the module inside the package; None for the package itself.

    Returns:
        The module; None if the package has no module of that name.

    Raises:
        ImportError: If the package does not exist, or if an import inside one of the modules fails.
    """
    try:
        module = importlib.import_module(package)
    except ModuleNotFoundError as exc:
        parent = package.rpartition(".")[0]
        if not parent or exc.name != package:
            raise
        package, module = parent, importlib.import_module(parent)
    if related_name is None:
        return module
    path = f"{package}.{related_name}"
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as exc:
        if exc.name != path:
            raise
        return None
