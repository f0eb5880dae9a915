"""What tasks, integrations and this package need beside the standard library (API-113).

The names below are found in their modules on first use, so that importing one module of this package does not import
the others.
"""
from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from functools import cached_property

    from . import deprecated
    from .functional import chunks, memoize, noop
    from .imports import gen_task_name, import_from_cwd, instantiate, symbol_by_name
    from .imports import qualname as get_full_cls_name
    from .imports import symbol_by_name as get_cls_by_name
    from .log import LOG_LEVELS
    from .nodenames import nodename, nodesplit, worker_direct
    from .serialization import jsonify, maybe_reraise, strtobool
    from .uniqueid import uuid
    from .uniqueid import uuid as gen_unique_id

__all__ = (
    "LOG_LEVELS",
    "cached_property",
    "chunks",
    "deprecated",
    "gen_task_name",
    "gen_unique_id",
    "get_cls_by_name",
    "get_full_cls_name",
    "import_from_cwd",
    "instantiate",
    "jsonify",
    "maybe_reraise",
    "memoize",
    "nodename",
    "nodesplit",
    "noop",
    "strtobool",
    "symbol_by_name",
    "uuid",
    "worker_direct",
)

_HOMES = {
    "LOG_LEVELS": ("celery.utils.log", "LOG_LEVELS"),
    "cached_property": ("functools", "cached_property"),
    "chunks": ("celery.utils.functional", "chunks"),
    "gen_task_name": ("celery.utils.imports", "gen_task_name"),
    "gen_unique_id": ("celery.utils.uniqueid", "uuid"),
    "get_cls_by_name": ("celery.utils.imports", "symbol_by_name"),
    "get_full_cls_name": ("celery.utils.imports", "qualname"),
    "import_from_cwd": ("celery.utils.imports", "import_from_cwd"),
    "instantiate": ("celery.utils.imports", "instantiate"),
    "jsonify": ("celery.utils.serialization", "jsonify"),
    "maybe_reraise": ("celery.utils.serialization", "maybe_reraise"),
    "memoize": ("celery.utils.functional", "memoize"),
    "nodename": ("celery.utils.nodenames", "nodename"),
    "nodesplit": ("celery.utils.nodenames", "nodesplit"),
    "noop": ("celery.utils.functional", "noop"),
    "strtobool": ("celery.utils.serialization", "strtobool"),
    "symbol_by_name": ("celery.utils.imports", "symbol_by_name"),
    "uuid": ("celery.utils.uniqueid", "uuid"),
    "worker_direct": ("celery.utils.nodenames", "worker_direct"),
}


def __getattr__(name: str) -> Any:
    """Find a public name in its module (PEP 562)."""
    if name == "deprecated":
        return import_module("celery.utils.deprecated")
    try:
        module, attribute = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    found = globals()[name] = getattr(import_module(module), attribute)
    return found
