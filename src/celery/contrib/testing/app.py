"""Applications for tests, and the state of the process around them (API-107).

Applications of tests come and go within one process, modules are imported once. So what a test does to the process is
undone with its application (`setup_default_app`): which application is current, which is the default one, and which
tasks every later application gets. What stays are the tasks of modules that were imported by `import_task_modules`.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import celery.contrib.testing.tasks  # noqa: F401 - every application of a test has celery.ping
from celery import _state
from celery.app.base import Celery
from celery.app.log import Logging

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping

__all__ = ("DEFAULT_TEST_CONFIG", "TestApp", "Trap", "UnitLogging", "set_trap", "setup_default_app")

#: Settings of a `TestApp`, below those that a test gives.
DEFAULT_TEST_CONFIG: dict[str, Any] = {
    "worker_hijack_root_logger": False,
    "worker_log_color": False,
    "accept_content": {"json"},
    "enable_utc": True,
    "timezone": "UTC",
    "broker_url": "memory://",
    "result_backend": "cache+memory://",
    "broker_heartbeat": 0,
}

#: How the tasks of task modules get into applications.
_finalizers_of_modules: list[Callable[[Celery], Any]] = []


class Trap:
    """Stands where the current application would be, and fails a test that asks it for anything."""

    def __getattr__(self, name: str) -> Any:
        """Refuse.

        Raises:
            RuntimeError: always. It names the attribute.
        """
        raise RuntimeError(
            f"Test depends on current_app: it asks it for {name!r}. Use the celery_app fixture, or ask for the "
            "depends_on_current_app fixture, which makes celery_app current."
        )


class UnitLogging(Logging):
    """Leaves the loggers, streams and warnings of the process to the test runner."""

    @property
    def already_setup(self) -> bool:
        """Always: there is nothing to set up."""
        return True

    @already_setup.setter
    def already_setup(self, value: bool) -> None:
        """Whatever is set, nothing is set up."""

    def setup(self, *args: Any, **kwargs: Any) -> bool:  # noqa: ARG002 - the signature that it overrides
        """Do nothing, and say that somebody else has done it."""
        return True


def TestApp(  # noqa: N802 - the documented name
    name: str | None = None,
    config: Mapping[str, Any] | None = None,
    enable_logging: bool = False,
    set_as_current: bool = False,
    log: Any = UnitLogging,
    backend: Any = None,
    broker: Any = None,
    **kwargs: Any,
) -> Celery:
    """An application for tests: broker and results in the memory of this process.

    Args:
        name: its main name, celery.tests by default.
        config: settings, over `DEFAULT_TEST_CONFIG`.
        enable_logging: let it set up loggers as in production.
        set_as_current: make it this thread's current application.
        log: class of `app.log`, unless logging is enabled.
        backend: result backend.
        broker: broker URL.
        kwargs: more arguments of `Celery`.
    """
    app = Celery(
        name or "celery.tests",
        set_as_current=set_as_current,
        log=None if enable_logging else log,
        broker=broker,
        backend=backend,
        **kwargs,
    )
    # Two layers, as those of the test may have old names.
    app.add_defaults(DEFAULT_TEST_CONFIG)
    app.add_defaults(config or {})
    return app


def set_trap(app: Celery) -> None:  # noqa: ARG001 - the documented signature
    """Make any use of the current application fail, in this thread and in those that have set none."""
    trap: Any = Trap()
    _state.set_default_app(trap)
    _state.set_current_app(None)


@contextmanager
def setup_default_app(app: Celery, use_trap: bool = False) -> Generator[None]:
    """Restore the state of the process when the block ends; see the module's text.

    Args:
        app: the application that is tested.
        use_trap: fail a test that uses the current application instead of this one.
    """
    current, default = _state._thread.current_app, _state.default_app
    finalizers = list(_state._on_app_finalizers)
    if use_trap:
        set_trap(app)
    try:
        yield
    finally:
        _state.set_current_app(current)
        _state.default_app = default
        stay = (each for each in _finalizers_of_modules if each not in finalizers)
        _state._on_app_finalizers[:] = [*finalizers, *stay]


def import_task_modules(app: Celery, modules: Iterable[str]) -> None:
    """Import modules for their tasks, which later applications get as well.

    Args:
        app: the application whose loader imports them.
        modules: import paths.
    """
    known = list(_state._on_app_finalizers)
    for module in modules:
        app.loader.import_task_module(module)
    _finalizers_of_modules.extend(each for each in _state._on_app_finalizers if each not in known)
