"""Periodic tasks that code adds, beside those in the configuration (API-017).

An entry that is added before the configuration is loaded waits for it, and is entered into `beat_schedule` then. It is
remembered after that too: configuring the application anew enters it anew.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celery.canvas.signature import Signature
from celery.exceptions import ImproperlyConfigured
from celery.schedules import maybe_schedule

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery.app.base import Celery
    from celery.app.config import Settings

logger = logging.getLogger(__name__)


class PeriodicTasks:
    """The entries that were added to one application, by key."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._entries: dict[str, dict[str, Any]] = {}
        #: Keys that code did not choose, since the configuration was last loaded: handlers add theirs again each time.
        self._unnamed: set[str] = set()

    def add(self, schedule: Any, sig: Any, args: Any, kwargs: Any, name: str | None, opts: Mapping[str, Any]) -> str:
        """Add an entry; its key. See `Celery.add_periodic_task`."""
        if maybe_schedule(schedule, app=self._app) is None:
            raise TypeError(f"The periodic task {sig!r} needs a schedule: seconds, a timedelta or a schedule object.")
        call = self._call(sig, args, dict(kwargs))
        key = name or repr(call)
        if not name:
            if key in self._unnamed:
                logger.warning(
                    "The periodic task %r replaces another that has no name either. Give one of them a name: "
                    "add_periodic_task(..., name=...).",
                    key,
                )
            self._unnamed.add(key)
        entry = {
            "schedule": schedule,
            "task": call.task,
            "args": call.args,
            "kwargs": call.kwargs,
            "options": {**call.options, **opts},
        }
        self._entries[key] = entry
        if self._app.conf.configured:
            _table(self._app.conf)[key] = entry
        return key

    def _call(self, sig: Any, args: Any, kwargs: dict[str, Any]) -> Signature[Any]:
        if isinstance(sig, Signature):
            return sig.clone(args, kwargs)
        name = getattr(sig, "name", None)
        if not isinstance(name, str):
            raise TypeError(f"A periodic task must be a signature, such as add.s(2, 2), or a task, not {sig!r}.")
        return self._app.signature(name, args, kwargs)

    def enter(self, settings: Settings) -> None:
        """Enter everything into settings that have just been loaded."""
        self._unnamed.clear()
        if self._entries:
            _table(settings).update(self._entries)


def _table(settings: Settings) -> dict[str, Any]:
    table = settings.beat_schedule
    if not isinstance(table, dict):
        raise ImproperlyConfigured(f"beat_schedule must be a dict of entries by name, not {table!r}.")
    return table
