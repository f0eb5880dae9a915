"""Loggers and what they write with (API-095).

``celery`` is the parent of all loggers of the system, ``celery.task`` of those of tasks, ``celery.worker`` of the
worker's.
"""
from __future__ import annotations

import logging
import sys
import threading
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .term import colored

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = (
    "LOG_LEVELS",
    "ColorFormatter",
    "LoggingProxy",
    "base_logger",
    "get_logger",
    "get_multiprocessing_logger",
    "get_task_logger",
    "in_sighandler",
    "iter_open_logger_fds",
    "mlevel",
    "reset_multiprocessing_logger",
    "set_in_sighandler",
    "task_logger",
    "worker_logger",
)

_NAMES = {"CRITICAL": 50, "FATAL": 50, "ERROR": 40, "WARN": 30, "WARNING": 30, "INFO": 20, "DEBUG": 10, "NOTSET": 0}
#: Levels by name, and names by level.
LOG_LEVELS: dict[Any, Any] = {**_NAMES, **{level: logging.getLevelName(level) for level in _NAMES.values()}}

RESERVED_LOGGER_NAMES = frozenset({"celery", "celery.task"})

_in_sighandler = False


def set_in_sighandler(value: bool) -> None:
    """Say that a signal handler runs, in which nothing may be logged: the lock of a handler may be taken."""
    global _in_sighandler  # noqa: PLW0603 - a signal handler runs once per process
    _in_sighandler = value


@contextmanager
def in_sighandler() -> Iterator[None]:
    """Keep `LoggingProxy` from logging inside the block."""
    set_in_sighandler(True)
    try:
        yield
    finally:
        set_in_sighandler(False)


def _adopt(parent: logging.Logger, logger: logging.Logger) -> logging.Logger:
    if logger is not parent and not logger.name.startswith(f"{parent.name}."):
        logger.parent = parent
    return logger


base_logger = logging.getLogger("celery")
task_logger = logging.getLogger("celery.task")
worker_logger = logging.getLogger("celery.worker")
# Where nobody has configured logging, nothing is written: without a handler, logging itself would print to stderr.
base_logger.addHandler(logging.NullHandler())


def get_logger(name: str) -> logging.Logger:
    """Return a logger whose records also go to those of ``celery``."""
    return _adopt(base_logger, logging.getLogger(name))


def get_task_logger(name: str) -> logging.Logger:
    """Return a logger for a module of tasks: it knows the running task's name and id.

    Raises:
        RuntimeError: The name is one of the system's own.
    """
    if name in RESERVED_LOGGER_NAMES:
        raise RuntimeError(f"Logger name {name!r} is reserved; use the name of your module, get_task_logger(__name__).")
    return _adopt(task_logger, logging.getLogger(name))


def mlevel(level: str | int | None) -> Any:
    """Return the number of a log level given by name in any case; leave numbers and None alone."""
    return LOG_LEVELS[level.upper()] if isinstance(level, str) else level


class ColorFormatter(logging.Formatter):
    """Formatter that colors records by level: debug blue, warning yellow, error red, critical magenta."""

    COLORS = colored().names
    colors = {
        "DEBUG": COLORS["blue"],
        "WARNING": COLORS["yellow"],
        "ERROR": COLORS["red"],
        "CRITICAL": COLORS["magenta"],
    }

    def __init__(self, fmt: str | None = None, use_color: bool = True, datefmt: str | None = None) -> None:
        super().__init__(fmt, datefmt)
        self.use_color = use_color

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record, colored; a record that cannot be formatted says so instead of getting lost."""
        try:
            text = super().format(record)
        except Exception as exc:  # noqa: BLE001 - arguments are user objects
            stack = "\n".join(traceback.format_stack())
            text = f"<Unrepresentable {record.msg!r} with {type(record.args).__name__}: {exc!r}>\n{stack}"
        color = self.colors.get(record.levelname)
        return str(color(text)) if color and self.use_color else text


class LoggingProxy:
    """A file whose lines go to a logger: stands in for stdout and stderr.

    Args:
        logger: Where to.
        loglevel: Level of the records; the logger's own if None.
    """

    mode = "w"
    name: str | None = None
    closed = False
    loglevel: Any = logging.ERROR

    def __init__(self, logger: logging.Logger, loglevel: str | int | None = None) -> None:
        self.logger = logger
        self.loglevel = mlevel(loglevel or logger.level or self.loglevel)
        self._thread = threading.local()

    def write(self, data: Any) -> int:
        """Log the text, unless it is blank; return its length.

        What a handler writes to this file while it logs goes to the real stderr, lest it runs in circles.
        """
        text = str(data).rstrip("\n") if data else ""
        if _in_sighandler:
            print(text, file=sys.__stderr__)
        elif text.strip() and not self.closed:
            if getattr(self._thread, "writing", False):
                print(text, file=sys.__stderr__)
                return len(data)
            self._thread.writing = True
            try:
                self.logger.log(self.loglevel, text)
            finally:
                self._thread.writing = False
        return len(data) if data else 0

    def writelines(self, sequence: Iterable[str]) -> None:
        """Log every line."""
        for part in sequence:
            self.write(part)

    def flush(self) -> None:
        """Do nothing: records are not buffered."""

    def close(self) -> None:
        """Log nothing from now on."""
        self.closed = True

    def isatty(self) -> bool:
        """Return False."""
        return False


def iter_open_logger_fds() -> Iterator[Any]:
    """Yield the streams of all handlers, which must stay open when a daemon closes its files."""
    seen: set[int] = set()
    loggers = [logging.getLogger(), *logging.root.manager.loggerDict.values()]
    for logger in loggers:
        for handler in getattr(logger, "handlers", ()):
            stream = getattr(handler, "stream", None)
            if stream is not None and id(handler) not in seen:
                seen.add(id(handler))
                yield stream


def get_multiprocessing_logger() -> logging.Logger:
    """Return the logger of `multiprocessing`."""
    from multiprocessing.util import get_logger as of_multiprocessing

    return of_multiprocessing()


def reset_multiprocessing_logger() -> None:
    """Remove the handlers of the logger of `multiprocessing`."""
    get_multiprocessing_logger().handlers.clear()
