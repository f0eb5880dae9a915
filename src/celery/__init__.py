"""Celeriac: the distributed task queue, import-compatible with Celery 5.7."""

__version__ = "5.7.0"
