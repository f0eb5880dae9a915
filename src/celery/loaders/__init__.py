"""Loaders: where an application's configuration and task modules come from (CONF-023)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from celery.utils.imports import import_from_cwd, symbol_by_name

if TYPE_CHECKING:
    from celery.loaders.base import BaseLoader

__all__ = ("get_loader_cls",)

LOADER_ALIASES = {
    "app": "celery.loaders.app:AppLoader",
    "default": "celery.loaders.default:Loader",
}


def get_loader_cls(loader: Any) -> type[BaseLoader]:
    """Return the loader class that *loader* means: an alias, an import path or a class (MOD-1242).

    Raises:
        ImportError: If the path leads nowhere.
    """
    return cast(type["BaseLoader"], symbol_by_name(loader, LOADER_ALIASES, imp=import_from_cwd))
