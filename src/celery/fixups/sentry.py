"""Lets Sentry finish sending before a child of a worker ends.

Its SDK sends from a thread of its own, and for the end of a child it relies on billiard's pool, which is not ours.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from celery import signals

if TYPE_CHECKING:
    from celery.app.base import Celery

__all__ = ("fixup",)


def fixup(app: Celery) -> None:  # noqa: ARG001 - what fixups are given
    """Install it; it acts only in processes that have loaded the SDK by then."""
    signals.worker_process_shutdown.connect(_flush, dispatch_uid=__name__)


def _flush(**_: Any) -> None:
    sdk = sys.modules.get("sentry_sdk")
    if sdk is not None:
        sdk.flush()  # waits for as long as the SDK's `shutdown_timeout` says
