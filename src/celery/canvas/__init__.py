"""Calls as values, and how they compose (canvas.md).

A workflow is written with `|`, `group` and `chord`, or their other names:

    a | b             b is called with the value of a                  chain(a, b)
    group(a, b)       a and b run beside each other
    group(a, b) | c   c is called with the list of their values        chord([a, b], c)

What is composed is a signature again, so it can be composed with others. `celery.canvas.algebra` has the table of all
kinds. To run a workflow takes three steps, whatever it is: it is laid out (chains in chains, groups in groups and what
is empty are gone), frozen (everything in it has its id and its place), and what comes first is sent; the rest travels
with it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from celery.canvas.signature import Signature, maybe_signature, maybe_subtask, signature, subtask

if TYPE_CHECKING:
    from celery.canvas.chains import _chain as _chain
    from celery.canvas.chains import chain as chain
    from celery.canvas.chords import _chord as _chord
    from celery.canvas.chords import chord as chord
    from celery.canvas.groups import group as group
    from celery.canvas.maps import chunks as chunks
    from celery.canvas.maps import xmap as xmap
    from celery.canvas.maps import xstarmap as xstarmap
    from celery.canvas.stamping import StampingVisitor as StampingVisitor

#: Names that load when they are used: most programs send plain calls. A module must not be called as one of them is.
_HOMES = {
    "StampingVisitor": "stamping",
    "_basemap": "maps",
    "_chain": "chains",
    "_chord": "chords",
    "chain": "chains",
    "chord": "chords",
    "chunks": "maps",
    "group": "groups",
    "xmap": "maps",
    "xstarmap": "maps",
}

__all__ = (
    "Signature",
    "StampingVisitor",
    "chain",
    "chord",
    "chunks",
    "group",
    "maybe_signature",
    "maybe_subtask",
    "signature",
    "subtask",
    "xmap",
    "xstarmap",
)


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
