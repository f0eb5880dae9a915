"""Pools: where attempts run (API-101..103). The contract is in `celery.concurrency.base`."""

from __future__ import annotations

import os
from typing import Any

from celery.exceptions import ImproperlyConfigured
from celery.utils.imports import symbol_by_name

__all__ = ("get_available_pool_names", "get_implementation")

ALIASES = {
    "prefork": "celery.concurrency.prefork:TaskPool",
    "processes": "celery.concurrency.prefork:TaskPool",
    "solo": "celery.concurrency.solo:TaskPool",
}
_LATER = ("threads", "gevent", "eventlet")


def get_implementation(cls: Any) -> Any:
    """The class of a pool: by alias, import path, or itself.

    Raises:
        ImproperlyConfigured: there is none of this name.
    """
    if not isinstance(cls, str):
        return cls
    if cls == "custom":
        cls = os.environ.get("CELERY_CUSTOM_WORKER_POOL", "")
    if cls in _LATER:
        raise ImproperlyConfigured(
            f"The pool {cls!r} is not in this version of Celeriac. Use prefork (its children also run async tasks, "
            "many at once) or solo."
        )
    try:
        return symbol_by_name(ALIASES.get(cls, cls))
    except (ImportError, AttributeError, ValueError) as exc:
        raise ImproperlyConfigured(f"There is no pool {cls!r}: {exc}. Known are {', '.join(ALIASES)}.") from exc


def get_available_pool_names() -> tuple[str, ...]:
    """The aliases."""
    return tuple(ALIASES)
