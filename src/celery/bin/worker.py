"""``celery worker``: start a worker (CLI-021..044)."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import click

from celery.bin.base import (
    COMMA_SEPARATED_LIST,
    LOG_LEVEL,
    CeleryDaemonCommand,
    CeleryOption,
    handle_preload_options,
)
from celery.bin.params import Choice, ParamType
from celery.exceptions import ImproperlyConfigured, SecurityError
from celery.platforms import EX_FAILURE, EX_OK, LockFailed, create_pidlock, maybe_drop_privileges
from celery.utils.log import get_logger
from celery.utils.nodenames import default_nodename, host_format, node_format

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery.apps.worker import Worker

__all__ = ("Autoscale", "Hostname", "WorkersPool", "worker")

logger = get_logger(__name__)

WORKER, POOL, QUEUES = "Worker Options", "Pool Options", "Queue Options"
FEATURES, BEAT = "Features", "Embedded Beat Options"

#: Options whose feature a later version brings, and which nobody wants ignored.
REFUSED = {
    "detach": "-D/--detach: run the worker under systemd or another supervisor, or in the background of your shell",
    "autoscale": "--autoscale: give the number of children with -c/--concurrency",
    "beat": "-B/--beat: periodic tasks are not sent by this version",
}
#: Options about those, which alone mean nothing.
UNUSED = ("optimization", "without_gossip", "without_mingle", "without_heartbeat", "heartbeat_interval",
          "schedule_filename", "scheduler", "executable")  # fmt: skip


class WorkersPool(Choice):
    """The name of a pool."""

    name = "pool"

    def __init__(self) -> None:
        super().__init__(("prefork", "eventlet", "gevent", "solo", "processes", "threads", "custom"))


class Hostname(click.types.StringParamType):
    """A node name, completed and expanded (CLI-021): ``w1@%h``; without an ``@`` it is the host part."""

    name = "hostname"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Complete and expand."""
        try:
            return host_format(default_nodename(value))
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


class Concurrency(ParamType):
    """How many children: a number, or ``auto``."""

    name = "concurrency"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Check."""
        text = str(value).strip()
        if text == "auto":
            return text
        if not text.isdecimal():
            self.fail(f"must be a non-negative integer or 'auto', got {value!r}", param, ctx)
        return int(text)


class Autoscale(ParamType):
    """The most and the fewest children, in any order; one number is the most."""

    name = "<min workers>, <max workers>"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Parse."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = sorted((int(part) for part in str(value).split(",")), reverse=True)
        except ValueError:
            self.fail(f"Expected two comma separated integers or one integer. Got {value!r} instead.", param, ctx)
        if len(numbers) > 2:
            self.fail(f"Expected two comma separated integers or one integer. Got {len(numbers)} instead.", param, ctx)
        return (numbers[0], numbers[1] if len(numbers) == 2 else 0)


def _option(group: str, *names: str, **attributes: Any) -> Callable[[Any], Any]:
    return click.option(*names, cls=CeleryOption, help_group=group, **attributes)


def _flag(group: str, *names: str, **attributes: Any) -> Callable[[Any], Any]:
    return _option(group, *names, is_flag=True, **attributes)


_OPTIONS = (
    _option(WORKER, "-n", "--hostname", type=Hostname(), help="Node name. Expands %h (host), %n (name), %d (domain)."),
    _flag(WORKER, "-D", "--detach", help="Run in the background (not in this version)."),
    _option(WORKER, "-S", "--statedb", type=click.Path(), help="File to keep revoked ids in (not in this version)."),
    _option(WORKER, "-l", "--loglevel", type=LOG_LEVEL, default="WARNING", help="Log this and what is worse."),
    _option(WORKER, "-O", "--optimization", type=click.Choice(("default", "fair")), default="default",
            help="No effect: scheduling is always fair."),
    _option(WORKER, "--prefetch-multiplier", type=int, help="Messages to reserve for each child."),
    _flag(WORKER, "--disable-prefetch", default=None, help="Reserve only what can run now (not in this version)."),
    _option(POOL, "-c", "--concurrency", type=Concurrency(), help="Number of children; 'auto': the CPUs we may use."),
    _option(POOL, "-P", "--pool", type=WorkersPool(), help="Pool implementation."),
    _flag(POOL, "-E", "--task-events", "--events", default=None, help="Send events about tasks."),
    _option(POOL, "--time-limit", type=float, help="Seconds after which a task is killed."),
    _option(POOL, "--soft-time-limit", type=float, help="Seconds after which SoftTimeLimitExceeded is raised in it."),
    _option(POOL, "--max-tasks-per-child", type=int, help="Tasks after which a child is replaced."),
    _option(POOL, "--pool-start-method", type=click.Choice(("fork", "spawn")), help="How children start."),
    _option(POOL, "--max-memory-per-child", type=int, help="KiB of resident memory after which a child is replaced."),
    _flag(QUEUES, "--purge", "--discard", help="Erase what waits in the queues first."),
    _option(QUEUES, "-Q", "--queues", type=COMMA_SEPARATED_LIST, help="Consume only these."),
    _option(QUEUES, "-X", "--exclude-queues", type=COMMA_SEPARATED_LIST, help="Consume all but these."),
    _option(QUEUES, "-I", "--include", type=COMMA_SEPARATED_LIST, help="More modules with tasks."),
    _flag(FEATURES, "--without-gossip", help="No effect: there is none."),
    _flag(FEATURES, "--without-mingle", help="No effect: there is none."),
    _flag(FEATURES, "--without-heartbeat", help="No effect: events of workers come in a later version."),
    _option(FEATURES, "--heartbeat-interval", type=int, help="No effect, likewise."),
    _option(FEATURES, "--autoscale", type=Autoscale(), help="Most and fewest children (not in this version)."),
    _flag(BEAT, "-B", "--beat", help="Send periodic tasks too (not in this version)."),
    _option(BEAT, "-s", "--schedule-filename", "--schedule", help="For -B."),
    _option(BEAT, "--scheduler", help="For -B."),
)  # fmt: skip


def _with_options(fun: Any) -> Any:
    for option in reversed(_OPTIONS):
        fun = option(fun)
    return fun


@click.command("worker", cls=CeleryDaemonCommand, context_settings={"allow_extra_args": True})
@_with_options
@click.pass_context
@handle_preload_options
def worker(
    ctx: click.Context,
    /,
    hostname: str | None = None,
    pool: str | None = None,
    uid: str | None = None,
    gid: str | None = None,
    umask: str | int | None = None,
    pidfile: str | None = None,
    prefetch_multiplier: int | None = None,
    **options: Any,
) -> None:
    """Start a worker.

    It runs tasks until it is told to stop.

    \b
    Examples:
      celery -A proj worker -l INFO
      celery -A proj worker -Q high,low --concurrency=4
      celery -A proj worker -- worker.prefetch_multiplier=1
    """  # noqa: D301 - the backspace tells click to keep the lines
    for name, instead in REFUSED.items():
        if options.pop(name, None):
            ctx.fail(f"This version does not have {instead}.")
    for name in UNUSED:
        options.pop(name, None)
    app = ctx.obj.app
    if ctx.args:
        _configure(ctx)
    try:
        maybe_drop_privileges(uid=uid, gid=gid)
        if umask is not None:
            os.umask(int(umask, 8) if isinstance(umask, str) else umask)
        node = hostname or default_nodename(None)
        if pidfile:
            create_pidlock(node_format(pidfile, node))
        from celery.apps.worker import Worker

        program = Worker(
            app,
            node.replace("%", "%%"),
            # prefork is what the setting says where nobody sets it, so naming it asks for nothing else (CLI-029).
            pool=None if pool == "prefork" else pool,
            prefetch_multiplier=prefetch_multiplier or None,
            quiet=ctx.obj.quiet,
            no_color=ctx.obj.no_color or None,
            **options,
        )
    except (LockFailed, SecurityError) as exc:
        ctx.obj.error(str(exc))
        ctx.exit(EX_FAILURE)
    _run(ctx, program)


def _configure(ctx: click.Context) -> None:
    """Take ``key=value`` items after ``--`` as settings (CLI-041)."""
    try:
        ctx.obj.app.config_from_cmdline(ctx.args, namespace="worker")
    except KeyError as exc:
        _refuse_settings(ctx, f"there is no setting {exc.args[0]!r}.")
    except ValueError as exc:
        _refuse_settings(ctx, str(exc))


def _refuse_settings(ctx: click.Context, reason: str) -> NoReturn:
    ctx.fail(f"Unable to parse extra configuration from command line.\nReason: {reason}")


def _run(ctx: click.Context, program: Worker) -> None:
    """Work until stopped, and exit with the worker's status (CLI-044)."""
    try:
        program.start()
    except ImproperlyConfigured:
        raise
    except Exception as exc:
        logger.critical("Unrecoverable error: %r", exc, exc_info=True)
        ctx.exit(program.exitcode or EX_FAILURE)
    if program.shutdown_signals.restart_requested:
        _execute_anew()
    ctx.exit(program.exitcode or EX_OK)


def _execute_anew() -> None:
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            stream.flush()
    os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - our own command line
