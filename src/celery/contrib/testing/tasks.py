"""The task by which `celery.contrib.testing.worker` sees that a worker works."""

from __future__ import annotations

from celery.app import shared_task

__all__ = ("ping",)


@shared_task(name="celery.ping")
def ping() -> str:
    """Say "pong"."""
    return "pong"
