"""Result backend URLs to classes (API-065). The other registry where drivers are imported, on first use."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from celery.app import brokers
from celery.exceptions import ImproperlyConfigured
from celery.utils.imports import symbol_by_name

if TYPE_CHECKING:
    from celery.backends.base import Backend
    from celery.loaders.base import BaseLoader

__all__ = ("by_name", "by_url")

#: Alias -> class. The ones that later versions bring are known here only by not being known.
BACKEND_ALIASES: dict[str, str] = {
    "rpc": "celery.backends.rpc:RPCBackend",
    "redis": "celery.backends.redis:RedisBackend",
    "rediss": "celery.backends.redis:RedisBackend",
    "redis+socket": "celery.backends.redis:RedisBackend",
    "socket": "celery.backends.redis:RedisBackend",
    "sentinel": "celery.backends.redis:SentinelBackend",
    "sqlite": "celery.backends.sqlite:SQLiteBackend",
    "cache": "celery.backends.cache:CacheBackend",
    "db": "celery.backends.database:DatabaseBackend",
    "database": "celery.backends.database:DatabaseBackend",
    "disabled": "celery.backends.base:DisabledBackend",
}

#: Result backends of Celery that this version does not have.
ABSENT = frozenset({
    "arangodb", "azureblockblob", "cassandra", "consul", "cosmosdbsql", "couchbase", "couchdb", "dynamodb",
    "elasticsearch", "file", "filesystem", "gs", "ironcache", "mongodb", "s3",
})  # fmt: skip


def by_name(
    backend: str | type[Backend] | None = None,
    loader: BaseLoader | None = None,
    extension_namespace: str = "celery.result_backends",
) -> type[Backend]:
    """The class for an alias, an entry point, or an import path.

    Raises:
        ImproperlyConfigured: there is none.
    """
    backend = backend or "disabled"
    if not isinstance(backend, str):
        return backend
    aliases = {**BACKEND_ALIASES, **(getattr(loader, "override_backends", None) or {})}
    if backend not in aliases:
        from importlib.metadata import entry_points  # 30 ms, which applications with a backend of ours do not pay

        for entry in entry_points(group=extension_namespace):
            aliases.setdefault(entry.name, entry.value)
    path = aliases.get(backend, backend)
    if not re.search(r"[.:]", path):
        known = ", ".join(sorted(aliases))
        absent = "  Celery has one, this version does not." if backend in ABSENT else ""
        raise ImproperlyConfigured(f"Unknown result backend: {backend!r}.{absent}  Known: {known}, and 'module:Class'.")
    try:
        found: type[Backend] = symbol_by_name(path)
    except (ImportError, AttributeError) as exc:
        raise ImproperlyConfigured(f"Unknown result backend: {backend!r}.  It cannot be imported: {exc}") from exc
    if not isinstance(found, type):
        raise ImproperlyConfigured(f"Unknown result backend: {backend!r}.  It is no class: give one as 'module:Class'.")
    return found


def by_url(
    backend: str | type[Backend] | None = None, loader: BaseLoader | None = None
) -> tuple[type[Backend], str | None]:
    """The class for a URL and the URL to give it (None when `backend` was only a name).

    Raises:
        ImproperlyConfigured: there is none.
    """
    url: str | None = None
    name: Any = backend
    if isinstance(backend, str) and "://" in backend:
        url = backend
        name, _, rest = url.partition("://")
        if "+" in name and name != "redis+socket":
            # db+postgresql://..., cache+memory://: the part after the plus is the store's own scheme.
            name, _, inner = name.partition("+")
            url = f"{inner}://{rest}"
            if name == "cache" and inner != "memory":
                raise ImproperlyConfigured(
                    f"Unknown result backend: 'cache+{inner}'.  The cache backend is cache+memory://, in this process; "
                    "results for other processes belong into Redis or a database."
                )
    return by_name(name, loader), url


def open_backend(app: Any) -> Backend:
    """The application's result store: what is configured, the embedded one when nothing is at all, else none."""
    conf = app.conf
    configured = app.backend_cls or conf.result_backend
    if not configured and brokers.is_embedded(app):
        configured = brokers.embedded_url(app)
    cls, url = by_url(configured, app.loader)
    return cls(app=app, url=url)
