"""Logging of the worker and its tasks (API-096, API-097, CLI-060, CLI-064, CLI-066).

Rules
    1. Set up once per process, by whichever application comes first. A receiver of the signal ``setup_logging`` does
       it instead of us: then nothing here touches a logger, a stream or a format.
    2. Two handlers: the root's, and that of ``celery.task``, whose format knows the running task and which does not
       propagate. Both write to the same place: the terminal's stderr, or a file that is opened anew after rotation.
    3. What is printed goes to the logger ``celery.redirected``, where that was asked for.
    4. Colours only where a person looks: on a terminal, without a log file.
    5. A child inherits its parent's set-up; ``CELERY_LOG_*`` in the environment describes it to one that does not
       (CONF-033). Where the file name has ``%i`` or ``%I`` every child writes a file of its own.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Any

from celery import signals
from celery._state import get_current_task
from celery.exceptions import CDeprecationWarning, ImproperlyConfigured
from celery.platforms import isatty
from celery.utils.log import ColorFormatter, LoggingProxy, get_logger, mlevel
from celery.utils.nodenames import node_format
from celery.utils.term import colored

if TYPE_CHECKING:
    from celery.app.base import Celery

__all__ = ("Logging", "TaskFormatter", "set_process_name")

REDIRECTED = "celery.redirected"
#: What `%(task_name)s` and `%(task_id)s` are outside of a task.
NO_TASK = "???"

#: This process has been set up.
_done = False
#: Handlers that we made, and where they are: the next set-up takes them away and closes their files.
_ours: list[tuple[logging.Logger, logging.Handler]] = []


class TaskFormatter(ColorFormatter):
    """Formatter that knows the running task: ``%(task_name)s`` and ``%(task_id)s``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record, coloured by level."""
        task = get_current_task()
        if task is not None and task.request:
            record.__dict__.update(task_id=task.request.id, task_name=task.name)
        else:
            record.__dict__.setdefault("task_id", NO_TASK)
            record.__dict__.setdefault("task_name", NO_TASK)
        return super().format(record)


def set_process_name(name: str) -> None:
    """Give records of this process *name* as ``%(processName)s``, on top of whatever record factory is in use.

    Logging asks `multiprocessing` for that name, which our children do without.
    """
    make = logging.getLogRecordFactory()

    def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        record.processName = name
        return record

    logging.setLogRecordFactory(factory)


class Logging:
    """``app.log``."""

    def __init__(self, app: Celery) -> None:
        self.app = app
        conf = app.conf
        self.loglevel = mlevel(logging.WARNING)
        self.format = conf.worker_log_format
        self.task_format = conf.worker_task_log_format
        self.datefmt = conf.worker_log_datefmt
        self.task_datefmt = conf.worker_task_log_datefmt
        self.colorize = conf.worker_log_color

    @property
    def already_setup(self) -> bool:
        """Whether this process has been set up; set to False, the next set-up replaces the handlers."""
        return _done

    @already_setup.setter
    def already_setup(self, value: bool) -> None:
        global _done  # noqa: PLW0603 - loggers belong to the process, not to an application
        _done = value

    def setup(
        self,
        loglevel: str | int | None = None,
        logfile: Any = None,
        redirect_stdouts: bool = False,
        redirect_level: str | int = "WARNING",
        colorize: bool | None = None,
        hostname: str | None = None,
    ) -> bool:
        """Set up logging of a program: loggers, warnings, standard streams.

        Args:
            loglevel: name or number; WARNING if None.
            logfile: path with the expansions of CLI-065, or an open file; stderr if None.
            redirect_stdouts: log what is printed.
            redirect_level: at this level.
            colorize: False for no colours, even on a terminal.
            hostname: node name, for the expansions.

        Returns:
            Whether receivers of ``setup_logging`` did it instead of us.
        """
        level = mlevel(loglevel)
        path = logfile if isinstance(logfile, str) else ""
        os.environ.update(
            CELERY_LOG_LEVEL=str(level or ""),
            CELERY_LOG_FILE=path,
            _MP_FORK_LOGLEVEL_=str(level or ""),
            _MP_FORK_LOGFILE_=path,
            _MP_FORK_LOGFORMAT_=self.format,
        )
        by_user = self.setup_logging_subsystem(level, logfile, colorize=colorize, hostname=hostname)
        if not by_user and redirect_stdouts:
            self.redirect_stdouts(redirect_level)
        import warnings

        warnings.filterwarnings("default", category=CDeprecationWarning)
        logging.captureWarnings(True)
        return by_user

    def setup_logging_subsystem(
        self,
        loglevel: str | int | None = None,
        logfile: Any = None,
        format: str | None = None,
        colorize: bool | None = None,
        hostname: str | None = None,
        datefmt: str | None = None,
        **kwargs: Any,
    ) -> bool:
        """Set up the loggers, once per process; arguments as for `setup`.

        Returns:
            Whether receivers of ``setup_logging`` did it instead of us.

        Raises:
            Exception: what such a receiver raised (SIG-034).
        """
        if self.already_setup:
            return False
        if isinstance(logfile, str) and hostname:
            logfile = node_format(logfile, hostname)
        level = mlevel(loglevel or self.loglevel)
        format = format or self.format
        colorize = self.supports_color(colorize, logfile)
        told = {"loglevel": level, "logfile": logfile, "format": format, "colorize": colorize}
        self.already_setup = True
        responses = signals.setup_logging.send(sender=None, **told)
        for _, response in responses:
            if isinstance(response, BaseException):
                raise response
        if responses:
            return True
        while _ours:
            logger, handler = _ours.pop()
            logger.removeHandler(handler)
            handler.close()
        root = logging.getLogger()
        if self.app.conf.worker_hijack_root_logger:
            root.handlers = []
        for name in ("celery", "celery.task", REDIRECTED):
            get_logger(name).handlers = []
        self.setup_handlers(root, logfile, format, colorize, datefmt=datefmt or self.datefmt, **kwargs)
        root.setLevel(level)
        signals.after_setup_logger.send(sender=None, logger=root, **told)
        self.setup_task_loggers(level, logfile, colorize=colorize, **kwargs)
        return False

    def setup_task_loggers(
        self,
        loglevel: str | int | None = None,
        logfile: Any = None,
        format: str | None = None,
        colorize: bool | None = None,
        propagate: bool = False,
        datefmt: str | None = None,
        **kwargs: Any,
    ) -> logging.Logger:
        """Set up and return the logger ``celery.task``; its records go no further up unless *propagate*."""
        level = mlevel(loglevel or self.loglevel)
        format = format or self.task_format
        colorize = self.supports_color(colorize, logfile)
        logger = get_logger("celery.task")
        self.setup_handlers(
            logger, logfile, format, colorize, formatter=TaskFormatter, datefmt=datefmt or self.task_datefmt, **kwargs
        )
        logger.setLevel(level)
        logger.propagate = bool(propagate)
        signals.after_setup_task_logger.send(
            sender=None, logger=logger, loglevel=level, logfile=logfile, format=format, colorize=colorize
        )
        return logger

    def setup_handlers(
        self,
        logger: logging.Logger,
        logfile: Any,
        format: str,
        colorize: bool,
        formatter: type[ColorFormatter] = ColorFormatter,
        datefmt: str | None = None,
        **kwargs: Any,
    ) -> logging.Logger:
        """Give a logger that has no handler one that writes to *logfile*; return the logger.

        Args:
            logger: which.
            logfile: path, open file, or None for the process's own stderr.
            format: of a line.
            colorize: colour the lines by level.
            formatter: class that formats.
            datefmt: `time.strftime` format of ``%(asctime)s``.
            kwargs: more arguments of the formatter.
        """
        if all(isinstance(handler, logging.NullHandler) for handler in logger.handlers):
            handler = _handler(logfile)
            handler.setFormatter(formatter(format, use_color=bool(colorize), datefmt=datefmt, **kwargs))
            logger.addHandler(handler)
            _ours.append((logger, handler))
        return logger

    def setup_child(self, index: int, hostname: str) -> None:
        """Finish logging in a new child: its own file where the name asks for one; everything if it inherited none.

        Args:
            index: 1 for the first child, at most the concurrency; ``%i`` in the file name (CLI-066).
            hostname: node name.
        """
        env = os.environ
        template = env.get("CELERY_LOG_FILE", "")
        own_file = node_format(template, hostname, i=str(index), I=f"-{index}")
        if self.already_setup and own_file == node_format(template, hostname):
            return
        self.already_setup = False
        level = int(env.get("CELERY_LOG_LEVEL") or self.loglevel)
        if not self.setup_logging_subsystem(level, own_file or None) and env.get("CELERY_LOG_REDIRECT"):
            self.redirect_stdouts(env.get("CELERY_LOG_REDIRECT_LEVEL") or "WARNING")

    def redirect_stdouts(self, loglevel: str | int | None = None, name: str = REDIRECTED) -> None:
        """Log what this process prints, on the logger *name*."""
        self.redirect_stdouts_to_logger(get_logger(name), loglevel)
        os.environ.update(CELERY_LOG_REDIRECT="1", CELERY_LOG_REDIRECT_LEVEL=str(loglevel or ""))

    def redirect_stdouts_to_logger(
        self, logger: logging.Logger, loglevel: str | int | None = None, stdout: bool = True, stderr: bool = True
    ) -> LoggingProxy:
        """Put a `LoggingProxy` in the place of stdout and stderr, and return it."""
        proxy: Any = LoggingProxy(logger, loglevel)
        if stdout:
            sys.stdout = proxy
        if stderr:
            sys.stderr = proxy
        return proxy  # type: ignore[no-any-return]  # Any, to stand in for a text file above

    def supports_color(self, colorize: bool | None = None, logfile: Any = None) -> bool:
        """Whether to colour: asked for or left open, on a terminal, without a log file, not on Windows."""
        wanted = self.colorize if colorize is None else colorize
        if wanted is False or self.app.IS_WINDOWS or logfile:
            return False
        return isatty(sys.__stderr__)

    def colored(self, logfile: Any = None, enabled: bool | None = None) -> colored:
        """A `colored` that colours where `supports_color` says so."""
        return colored(enabled=self.supports_color(enabled, logfile))

    def get_default_logger(self, name: str = "celery", **kwargs: Any) -> logging.Logger:  # noqa: ARG002 - documented
        """The logger *name*, a child of ``celery``."""
        return get_logger(name)


def _handler(logfile: Any) -> logging.Handler:
    if logfile is None:
        return logging.StreamHandler(sys.__stderr__)
    if hasattr(logfile, "write"):
        return logging.StreamHandler(logfile)
    from logging.handlers import WatchedFileHandler

    try:
        return WatchedFileHandler(logfile, encoding="utf-8")
    except OSError as exc:
        raise ImproperlyConfigured(f"The log file {logfile} cannot be opened: {exc.strerror}.") from exc
