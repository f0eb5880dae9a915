"""The loader of every application that is created explicitly."""

from __future__ import annotations

from celery.loaders.base import BaseLoader

__all__ = ("AppLoader",)


class AppLoader(BaseLoader):
    """Reads the source given to the application, else the module that CELERY_CONFIG_MODULE names (CONF-025)."""
