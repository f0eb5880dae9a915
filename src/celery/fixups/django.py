"""Makes an application at home in a Django project (API-051).

`DjangoFixup` belongs to every process of the project: tasks are `DjangoTask`s, installed apps are searched for tasks,
time is Django's. Before task modules are imported, Django is set up and checks itself.

`DjangoWorkerFixup` keeps the connections of workers fresh, which in a web server the end of each request does:

1. No child inherits an open connection: the worker closes its own before its first child is made.
2. Before and after a task that a worker runs, connections that are broken, or older than ``CONN_MAX_AGE``, are closed;
   with ``CELERY_DB_REUSE_MAX`` in Django's settings, only after every so many tasks.
3. Async tasks share the one thread in which Django runs queries for coroutines, so the closing is done there; and
   while another async task runs only broken connections are closed, as an old one may be in the middle of its rows.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import warnings
import weakref
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from celery import signals
from celery.exceptions import FixupWarning

if TYPE_CHECKING:
    from celery.app.base import Celery
    from celery.app.task import Task

__all__ = ("DjangoFixup", "DjangoWorkerFixup", "fixup")

logger = logging.getLogger(__name__)

DJANGO_TASK = "celery.contrib.django.task:DjangoTask"
WARNING = logging.WARNING


def fixup(app: Celery, env: str = "DJANGO_SETTINGS_MODULE") -> DjangoFixup | None:
    """Install the fixup where the environment variable names the settings of a Django project.

    Args:
        app: the application.
        env: name of the variable.

    Returns:
        The fixup; None outside of such a project, and with a loader made for Django, which does the same.
    """
    if not os.environ.get(env) or "django" in str(app.loader_cls).lower():
        return None
    try:
        import django  # noqa: F401 - whether it is there
    except ImportError:
        warnings.warn(
            f"{env} is set, but Django is not installed: install it, or unset {env}.", FixupWarning, stacklevel=2
        )
        return None
    return DjangoFixup(app).install()


class DjangoFixup:
    """See the module.

    Args:
        app: the application.
    """

    def __init__(self, app: Celery) -> None:
        self.app = app
        self.worker_fixup = DjangoWorkerFixup()
        self._checked = False

    def install(self) -> DjangoFixup:
        """Take effect. Imports nothing of the project."""
        if (here := os.getcwd()) not in sys.path:
            sys.path.insert(0, here)
        app = self.app
        if app.task_cls == type(app).task_cls == "celery.app.task:Task":
            app.task_cls = DJANGO_TASK
        app.loader.now = self.now  # type: ignore[method-assign]  # the documented way to another clock
        signals.import_modules.connect(self.on_import_modules, sender=app)
        self.worker_fixup.install()
        return self

    def now(self, utc: bool = False) -> datetime:
        """The time: Django's (aware with USE_TZ), or aware in UTC."""
        from django.utils import timezone

        now: datetime = datetime.now(UTC) if utc else timezone.now()
        return now

    def autodiscover_tasks(self) -> list[str]:
        """Names of the installed apps."""
        from django.apps import apps

        return [config.name for config in apps.get_app_configs()]

    def on_import_modules(self, **_: Any) -> None:
        """Set Django up and let it check the project, before its task modules are imported.

        What the checks find is logged. CELERY_SKIP_CHECKS skips them.
        """
        import django

        django.setup()
        if self._checked or os.environ.get("CELERY_SKIP_CHECKS"):
            return
        self._checked = True
        from django.core.checks import run_checks

        for message in run_checks():
            if message.level >= WARNING and not message.is_silenced():
                logger.log(message.level, "System check: %s", message)


class DjangoWorkerFixup:
    """See the module."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._inherited: list[Any] = []
        self._closings = 0
        self._coroutines: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        self._cleaning: set[asyncio.Task[None]] = set()

    def install(self) -> DjangoWorkerFixup:
        """Take effect in the worker's processes, forked and spawned ones."""
        signals.worker_init.connect(self.on_worker_init)
        signals.worker_process_init.connect(self.on_process_init)
        return self

    def on_worker_init(self, **_: Any) -> None:
        """A worker starts in this process."""
        from django.db import connections

        self._pid = os.getpid()
        for connection in connections.all(initialized_only=True):
            connection.close()
            if hasattr(connection, "close_pool"):  # PostgreSQL, since Django 5.1
                connection.close_pool()

    def on_process_init(self, **_: Any) -> None:
        """Tasks will run in this process. What it inherited is its parent's: not to be used, closed or collected."""
        if os.getpid() != self._pid:
            from django.db import connections

            for connection in connections.all(initialized_only=True):
                self._inherited.append(connection)
                del connections[connection.alias]
        signals.task_prerun.connect(self.on_task)
        signals.task_postrun.connect(self.on_task)

    def on_task(self, sender: Task[..., Any], **_: Any) -> None:
        """A task is about to run, or has run."""
        if sender.request.is_eager:
            return
        coroutine = _coroutine_here()
        if coroutine is None:
            self.close_database()
        else:
            self._close_beside(coroutine)
        from django.core.cache import close_caches

        close_caches()

    def close_database(self, busy: bool = False) -> None:
        """Close connections of this thread that are broken or, unless `busy`, old."""
        from django.conf import settings
        from django.db import connections

        reuse = getattr(settings, "CELERY_DB_REUSE_MAX", None)
        self._closings += 1
        if reuse and self._closings <= 2 * reuse:  # before and after each task
            return
        self._closings = 0
        for connection in connections.all(initialized_only=True):
            if not busy:
                connection.close_if_unusable_or_obsolete()
            elif connection.errors_occurred and not connection.in_atomic_block and not connection.is_usable():
                connection.close()

    def _close_beside(self, coroutine: asyncio.Task[Any]) -> None:
        from asgiref.sync import sync_to_async

        busy = any(other is not coroutine and not other.done() for other in self._coroutines)
        self._coroutines.add(coroutine)
        cleaning = asyncio.get_running_loop().create_task(sync_to_async(self.close_database)(busy))
        self._cleaning.add(cleaning)  # a loop refers to its tasks only weakly
        cleaning.add_done_callback(self._cleaning.discard)


def _coroutine_here() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
