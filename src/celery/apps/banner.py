"""What a worker shows when it starts (CLI-045, CLI-046). No art: terminals are narrow, and so are log viewers."""

from __future__ import annotations

import logging
import platform
import time
from typing import TYPE_CHECKING, NamedTuple

from celery import VERSION_BANNER
from celery.app import brokers
from celery.brokers.url import mask, parse
from celery.utils.imports import qualname

if TYPE_CHECKING:
    from collections.abc import Iterable

    from celery.app.base import Celery

__all__ = ("EXTRA_INFO_FMT", "Facts", "banner", "tasklist")

#: Of our distribution. Not asked of `importlib.metadata`, which a worker would keep 2 MiB of modules for.
OWN_VERSION = "0.1.0"
EXTRA_INFO_FMT = """
[tasks]
{tasks}
"""
APP_LOADER = "celery.loaders.app.AppLoader"
BUILT_IN = "celery."


class Facts(NamedTuple):
    """What is shown beside what the application knows."""

    hostname: str
    concurrency: int
    pool: str
    task_events: bool
    #: Tasks are listed from INFO down, built-in ones at DEBUG.
    loglevel: int


def banner(app: Celery, facts: Facts) -> str:
    """Return the lines to print: who, where, how, and which queues and tasks."""
    lines = [
        f"{facts.hostname} v{VERSION_BANNER}",
        "",
        f"{platform.platform()} {time.strftime('%Y-%m-%d %H:%M:%S')}",
        "",
        "[config]",
        *_config(app, facts),
        "",
        "[queues]",
        app.amqp.queues.format(),
    ]
    return "\n".join(lines) + "\n" + extra_info(app, facts.loglevel)


def extra_info(app: Celery, loglevel: int) -> str:
    """Return the list of tasks, where the log level shows it."""
    if loglevel > logging.INFO:
        return ""
    return EXTRA_INFO_FMT.format(tasks=tasklist(app.tasks, include_builtins=loglevel <= logging.DEBUG))


def tasklist(names: Iterable[str], include_builtins: bool = True, sep: str = "\n", int_: str = BUILT_IN) -> str:
    """Return names of tasks as lines; *int_* is what built-in ones begin with."""
    return sep.join(f"  . {name}" for name in sorted(names) if include_builtins or not name.startswith(int_))


def _config(app: Celery, facts: Facts) -> list[str]:
    loader = qualname(type(app.loader))
    shown_app = f"{app.main or '__main__'}:{id(app):#x}" + ("" if loader == APP_LOADER else f" ({loader})")
    transport = ";".join(map(_address, brokers.broker_urls(app, read=True)))
    rows = {
        "app": shown_app,
        "transport": transport + (" (embedded: no broker is configured)" if brokers.is_embedded(app) else ""),
        "results": app.backend.as_uri(),
        "concurrency": f"{facts.concurrency} ({facts.pool})",
        "task events": "ON" if facts.task_events else "OFF (enable -E to monitor tasks in this worker)",
        "celeriac": OWN_VERSION,
    }
    return [f".> {name + ':':<12} {value}" for name, value in rows.items()]


def _address(url: str) -> str:
    """A broker's URL without its password; of RabbitMQ with what it leaves out, as its server's log has it."""
    if not url.startswith(("amqp://", "pyamqp://", "amqps://")):
        return mask(url)
    place = parse(url)
    port = place.port or (5671 if place.scheme == "amqps" else 5672)
    host = f"[{place.host}]" if ":" in (place.host or "") else place.host or "localhost"
    return f"{place.scheme}://{place.user or 'guest'}:**@{host}:{port}/{place.path.removeprefix('/') or '/'}"
