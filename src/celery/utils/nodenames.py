"""Names of workers: ``name@host`` (CLI-065)."""

from __future__ import annotations

import os
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .text import simple_format

if TYPE_CHECKING:
    from collections.abc import Callable


__all__ = (
    "anon_nodename",
    "default_nodename",
    "gethostname",
    "host_format",
    "hostname",
    "node_format",
    "nodename",
    "nodesplit",
    "worker_direct",
)

#: Name part of a worker that was not given one.
NODENAME_DEFAULT = "celery"

#: Name of the queue, and exchange, that only one worker consumes from.
WORKER_DIRECT_QUEUE_FORMAT = "{hostname}.dq2"
WORKER_DIRECT_EXCHANGE = "C.dq2"


@lru_cache(maxsize=1)
def gethostname() -> str:
    """Return the name of this machine."""
    return os.uname().nodename  # as of the module socket, which a program that sends nothing need not load


hostname = gethostname


def worker_direct(hostname: str | Any) -> Any:
    """Return the queue that only the worker of this node name consumes from; a queue is returned as it is."""
    if not isinstance(hostname, str):
        return hostname
    topology: Any = import_module("celery.brokers.topology")  # lies above, and is needed for routes to one worker only
    return topology.Queue(
        WORKER_DIRECT_QUEUE_FORMAT.format(hostname=hostname), topology.Exchange(WORKER_DIRECT_EXCHANGE), hostname
    )


def nodename(name: str, hostname: str) -> str:
    """Put the two parts of a node name together."""
    return f"{name}@{hostname}"


def anon_nodename(hostname: str | None = None, prefix: str = "gen") -> str:
    """Return the name of a process that is no worker, such as a sender: ``gen<pid>@host``."""
    return nodename(f"{prefix}{os.getpid()}", hostname or gethostname())


def nodesplit(name: str) -> tuple[str | None, str]:
    """Split a node name; without ``@`` it is all host."""
    left, at, right = name.partition("@")
    return (left, right) if at else (None, left)


def default_nodename(hostname: str | None, default_name: str = NODENAME_DEFAULT) -> str:
    """Complete a node name from its name part, host part or nothing."""
    name, host = nodesplit(hostname or "")
    return nodename(name or default_name, host or gethostname())


def node_format(s: str, name: str, **extra: str | Callable[[], str]) -> str:
    """Expand ``%p``, ``%n``, ``%h``, ``%d``, ``%i`` and ``%I`` in a file name from the node name (CLI-065)."""
    shortname, host = nodesplit(name)
    return host_format(s, host, shortname or NODENAME_DEFAULT, p=name, **extra)


def host_format(s: str, host: str | None = None, name: str | None = None, **extra: str | Callable[[], str]) -> str:
    """Expand ``%n``, ``%h``, ``%d``, ``%i`` and ``%I`` in a node name.

    Args:
        s: The text; empty and None are returned as they are.
        host: Host part; this machine if None.
        name: Name part.
        extra: More letters; ``i`` and ``I`` are the index of a child, 0 and nothing in the main process.

    Raises:
        ValueError: An unknown letter.
    """
    host = host or gethostname()
    keys: dict[str, Any] = {
        "h": host,
        "n": name or NODENAME_DEFAULT,
        "d": host.partition(".")[2],
        "i": "0",
        "I": "",
        **extra,
    }
    return simple_format(s, keys)
