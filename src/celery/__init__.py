"""Celeriac: the distributed task queue, import-compatible with Celery 5.7.

Importing this package imports next to nothing: its names (API-001) load on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from celery._state import current_app as current_app
    from celery._state import current_task as current_task
    from celery.app import bugreport as bugreport
    from celery.app import shared_task as shared_task
    from celery.app.base import Celery as Celery
    from celery.app.task import Task as Task
    from celery.canvas.chains import chain as chain
    from celery.canvas.chords import chord as chord
    from celery.canvas.groups import group as group
    from celery.canvas.maps import chunks as chunks
    from celery.canvas.maps import xmap as xmap
    from celery.canvas.maps import xstarmap as xstarmap
    from celery.canvas.signature import Signature as Signature
    from celery.canvas.signature import maybe_signature as maybe_signature
    from celery.canvas.signature import signature as signature
    from celery.canvas.signature import subtask as subtask
    from celery.utils.uniqueid import uuid as uuid


class version_info_t(NamedTuple):  # noqa: N801 - the documented name
    """A version, in parts."""

    major: int
    minor: int
    micro: int
    releaselevel: str
    serial: str


#: The Celery whose interface and messages these are; integrations compare it.
__version__ = "5.7.0"
SERIES = "collider"
VERSION = version_info = version_info_t(5, 7, 0, "", "")
VERSION_BANNER = f"{__version__} ({SERIES})"

#: Public name -> the module it lives in.
_HOMES = {
    "Celery": "celery.app.base",
    "Signature": "celery.canvas.signature",
    "Task": "celery.app.task",
    "bugreport": "celery.app",
    "chain": "celery.canvas.chains",
    "chord": "celery.canvas.chords",
    "chunks": "celery.canvas.maps",
    "current_app": "celery._state",
    "current_task": "celery._state",
    "group": "celery.canvas.groups",
    "maybe_signature": "celery.canvas.signature",
    "shared_task": "celery.app",
    "signature": "celery.canvas.signature",
    "subtask": "celery.canvas.signature",
    "uuid": "celery.utils.uniqueid",
    "xmap": "celery.canvas.maps",
    "xstarmap": "celery.canvas.maps",
}

__all__ = (
    "Celery",
    "Signature",
    "Task",
    "bugreport",
    "chain",
    "chord",
    "chunks",
    "current_app",
    "current_task",
    "group",
    "maybe_signature",
    "shared_task",
    "signature",
    "subtask",
    "uuid",
    "xmap",
    "xstarmap",
)


def maybe_patch_concurrency(
    argv: list[str] | None = None,
    short_opts: list[str] | None = None,
    long_opts: list[str] | None = None,
    patches: dict[str, Any] | None = None,
) -> None:
    """Patch the standard library for the green pool that a command line asks for.

    Args:
        argv: the command line; default `sys.argv`.
        short_opts: options that name the pool, default `-P`.
        long_opts: the same in words, default `--pool`.
        patches: pool name -> function that patches.
    """
    import sys

    names = {*(short_opts or ["-P"]), *(long_opts or ["--pool"])}
    words = sys.argv if argv is None else argv
    for word, following in zip(words, [*words[1:], ""], strict=True):
        option, given, value = word.partition("=")
        if option in names:
            patch = (patches or {}).get(value if given else following)
            if patch is not None:
                patch()
            return


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is not None:
        value = globals()[name] = getattr(import_module(home), name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
