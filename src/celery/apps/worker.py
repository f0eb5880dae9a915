"""The worker as a program: log, banner, signals, around `WorkController` (MOD-0381..0407).

Order of its beginning: ``celeryd_init`` (for receivers the instance has a name and an application, nothing more), task
modules, the controller's set-up, logging, ``celeryd_after_setup``; then `start`: banner, standard streams, signal
handlers, and the controller takes over.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from celery import _state, signals
from celery.apps import banner as _banner
from celery.apps.banner import EXTRA_INFO_FMT
from celery.apps.shutdown import ShutdownSignals, safe_say
from celery.platforms import check_privileges, set_process_title
from celery.utils.log import get_logger, mlevel
from celery.utils.nodenames import default_nodename, host_format
from celery.utils.text import pluralize
from celery.worker.worker import WorkController

if TYPE_CHECKING:
    from collections.abc import Iterable

    from celery.app.base import Celery

__all__ = ("EXTRA_INFO_FMT", "Worker", "safe_say")

logger = get_logger(__name__)

#: Options that are taken, so that command lines keep working, and have no effect yet: what follows from that.
NOT_YET = {
    "statedb": "--statedb is not acted on in this version: the worker forgets revoked tasks when it ends.",
    "disable_prefetch": "--disable-prefetch is not acted on in this version: use --prefetch-multiplier=1.",
    "task_events": "Task events are not in this version: none will be sent.",
}


class Worker(WorkController):
    """A worker run from the command line.

    Args:
        app: the application; the current one if None.
        hostname: node name; expands %h, %n and %d.
        quiet: no banner.
        no_color: no colours in the log.
        loglevel: name or number; WARNING if None.
        redirect_stdouts: log what is printed; the setting if None.
        redirect_stdouts_level: at this level; the setting if None.
        include: more modules with tasks.
        options: of `WorkController`.

    Raises:
        SecurityError: it would run as root and accept pickle (CLI-042).
    """

    def __init__(
        self,
        app: Celery | None = None,
        hostname: str | None = None,
        *,
        quiet: bool = False,
        no_color: bool | None = None,
        loglevel: str | int | None = None,
        redirect_stdouts: bool | None = None,
        redirect_stdouts_level: str | int | None = None,
        include: Iterable[str] | None = None,
        **options: Any,
    ) -> None:
        self.app = app or self.app or _state.get_current_app()
        self.hostname = host_format(default_nodename(hostname))
        conf = self.app.conf
        signals.celeryd_init.send(sender=self.hostname, instance=self, conf=conf, options=options)
        check_privileges(conf.accept_content)
        if include:
            conf.include = (*conf.include, *include)
        self.app.loader.init_worker()
        # The name is final: what is left of a percent sign in it is one.
        super().__init__(self.app, self.hostname.replace("%", "%%"), loglevel=mlevel(loglevel or "WARNING"), **options)
        self.quiet = quiet
        self.no_color = no_color
        self.redirect = conf.worker_redirect_stdouts if redirect_stdouts is None else redirect_stdouts
        self.redirect_level = redirect_stdouts_level or conf.worker_redirect_stdouts_level
        self.shutdown_signals = ShutdownSignals(self, " ".join(sys.argv))
        self._logging_by_user = self.setup_logging()
        signals.celeryd_after_setup.send(sender=self.hostname, instance=self, conf=conf)

    def setup_logging(self, colorize: bool | None = None) -> bool:
        """Set up logging; return whether receivers of ``setup_logging`` did it instead of us."""
        if colorize is None and self.no_color:
            colorize = False
        return self.app.log.setup(  # type: ignore[no-any-return]  # the class of app.log can be replaced
            self.loglevel, self.logfile, redirect_stdouts=False, colorize=colorize, hostname=self.hostname
        )

    def start(self) -> None:
        """Show the banner, handle signals, and work until stopped."""
        self._warn_of_what_is_ignored()
        if not self.quiet:
            self.emit_banner()
        streams = sys.stdout, sys.stderr
        if self.redirect and not self._logging_by_user:
            self.app.log.redirect_stdouts(self.redirect_level)
        self.shutdown_signals.install()
        self.set_process_status("-active-")
        try:
            super().start()
        finally:
            self.shutdown_signals.over = True
            # What is printed from now on is no longer about tasks.
            sys.stdout, sys.stderr = streams

    def _warn_of_what_is_ignored(self) -> None:
        conf = self.app.conf
        conf.maybe_warn_deprecated_settings()
        wanted = {**self.options, "task_events": self.task_events}
        for option, text in NOT_YET.items():
            if wanted.get(option):
                logger.warning(text)
        ignored = conf.unacted()
        if ignored:
            logger.warning(
                "This version does not act on the %s %s. (`celery settings` lists them.)",
                pluralize(len(ignored), "setting"),
                ", ".join(ignored),
            )

    def emit_banner(self) -> None:
        """Print the banner to the real stdout."""
        print(self.startup_info(), file=sys.__stdout__, flush=True)

    def startup_info(self, artlines: bool = True) -> str:  # noqa: ARG002 - part of the documented signature
        """Return the banner."""
        return _banner.banner(self.app, self._facts())

    def extra_info(self) -> str:
        """Return the part of the banner that lists the tasks; empty where the log level does not show it."""
        return _banner.extra_info(self.app, self.loglevel)

    def tasklist(self, include_builtins: bool = True, sep: str = "\n", int_: str = _banner.BUILT_IN) -> str:
        """Return the names of the tasks as lines."""
        return _banner.tasklist(self.app.tasks, include_builtins, sep, int_)

    def _facts(self) -> _banner.Facts:
        return _banner.Facts(
            hostname=self.hostname,
            concurrency=self.concurrency,
            pool=getattr(self.pool_cls, "name", self.pool_cls.__name__),
            task_events=self.task_events,
            loglevel=self.loglevel,
        )

    def set_process_status(self, info: str) -> None:
        """Show the node name and *info* as the title of the process (CLI-049); not with NOSETPS in the environment."""
        if not os.environ.get("NOSETPS"):
            arguments = " ".join(sys.argv[1:])
            set_process_title(f"celeryd: {self.hostname}:MainProcess", f"{info} ({arguments})")
