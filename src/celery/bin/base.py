"""What commands are made of, ours and those of plug-ins (API-115).

A command gets a `CLIContext` as ``ctx.obj``: the application and how to talk. A `CeleryCommand` shows its options in
groups, and has, beside its own, the options that the application adds: ``app.user_options["preload"]`` to every
command and ``app.user_options[<command>]`` to the one of that name (CLI-018).
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, NoReturn

import click

from celery import signals
from celery.bin.params import (
    COMMA_SEPARATED_LIST,
    ISO8601,
    ISO8601_OR_FLOAT,
    JSON_ARRAY,
    JSON_OBJECT,
    LOG_LEVEL,
    CommaSeparatedList,
    ISO8601DateTime,
    ISO8601DateTimeOrFloat,
    JsonArray,
    JsonObject,
    LogLevel,
)
from celery.platforms import EX_UNAVAILABLE
from celery.utils.functional import fun_takes_argument
from celery.utils.text import indent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import TypeVar

    from celery.app.base import Celery

    F = TypeVar("F", bound=Callable[..., Any])

__all__ = (
    "COMMA_SEPARATED_LIST",
    "ISO8601",
    "ISO8601_OR_FLOAT",
    "JSON_ARRAY",
    "JSON_OBJECT",
    "LOG_LEVEL",
    "CLIContext",
    "CeleryCommand",
    "CeleryDaemonCommand",
    "CeleryOption",
    "CommaSeparatedList",
    "DaemonOption",
    "ISO8601DateTime",
    "ISO8601DateTimeOrFloat",
    "JsonArray",
    "JsonObject",
    "LogLevel",
    "handle_preload_options",
    "handle_remote_command_error",
)

#: Options of ``celery`` itself, which must precede the command (CLI-013).
GLOBAL_OPTIONS = frozenset({
    "-A", "--app", "-b", "--broker", "--result-backend", "--loader", "--config", "--workdir", "-C", "--no-color", "-q",
    "--quiet", "--skip-checks",
})  # fmt: skip


class CLIContext:
    """``ctx.obj``: the application, and how to talk to whoever typed the command.

    Args:
        app: the application.
        no_color: print without colours.
        workdir: directory that was changed to, if any.
        quiet: print less.
    """

    def __init__(self, app: Celery, no_color: bool, workdir: str | None, quiet: bool = False) -> None:
        self.app = app
        self.no_color = no_color
        self.workdir = workdir
        self.quiet = quiet

    @property
    def OK(self) -> str:  # noqa: N802 - the documented name
        """The word for success, styled."""
        return self.style("OK", fg="green", bold=True)

    @property
    def ERROR(self) -> str:  # noqa: N802 - the documented name
        """The word for failure, styled."""
        return self.style("ERROR", fg="red", bold=True)

    def style(self, message: Any = None, **kwargs: Any) -> str:
        """Return a text in the style given, or as it is where there shall be no colours."""
        return str(message) if self.no_color else click.style(message, **kwargs)

    def secho(self, message: Any = None, **kwargs: Any) -> None:
        """Print a text in the style given."""
        kwargs["color"] = False if self.no_color else kwargs.get("color")
        click.secho(message, **kwargs)

    def echo(self, message: Any = None, **kwargs: Any) -> None:
        """Print a text."""
        kwargs["color"] = False if self.no_color else kwargs.get("color")
        click.echo(message, **kwargs)

    def error(self, message: Any = None, **kwargs: Any) -> None:
        """Print a text to stderr."""
        kwargs["err"] = True
        self.echo(message, **kwargs)

    def pretty(self, n: Any) -> tuple[str, str]:
        """Return the status and the body to show for a worker's reply (CLI-085)."""
        if isinstance(n, list):
            return self.OK, self.pretty_list(n)
        if isinstance(n, dict):
            if "ok" in n or "error" in n:
                return self.pretty_dict_ok_error(n)
            return self.OK, json.dumps(n, sort_keys=True, indent=4, default=repr)
        return self.OK, str(n)

    def pretty_list(self, n: Iterable[Any]) -> str:
        """Return a list as lines."""
        return "\n".join(f"* {item if isinstance(item, str) else self.pretty(item)[1]}" for item in n) or "- empty -"

    def pretty_dict_ok_error(self, n: dict[str, Any]) -> tuple[str, str]:
        """Return the status and the body of a reply that says ok or error."""
        if "ok" in n:
            return self.OK, indent(self.pretty(n["ok"])[1], 4)
        return self.ERROR, indent(self.pretty(n["error"])[1], 4)

    def say_chat(self, direction: str, title: str, body: str = "", show_body: bool = False) -> None:
        """Print a line about what a worker was asked (``<-``) or answered (``->``), and the body when wanted."""
        if direction == "<-" and self.quiet:
            return
        arrow = "" if self.quiet else self.style(f"{direction}  ", fg="white", bold=True)
        self.echo(arrow + title)
        if body and show_body:
            self.echo(indent(body, 4))


def handle_remote_command_error(command: str, exc: Exception) -> NoReturn:
    """Turn what went wrong while talking to workers, or to the broker, into exit status 69 (CLI-019).

    Args:
        command: its name, for the text.
        exc: what was caught; errors of click, such as wrong usage, pass unchanged.

    Raises:
        CeleryCommandException: always, but for those.
    """
    if isinstance(exc, (click.ClickException, click.exceptions.Exit, click.Abort)):
        raise exc
    from celery.exceptions import CeleryCommandException, OperationalError

    if isinstance(exc, (OperationalError, ConnectionError)):
        text = "Could not connect to the message broker. Is it running, and is its URL (broker_url, -b) right?"
    else:
        text = f"Unable to run the `{command}` command."
    reason = str(exc) or type(exc).__name__
    raise CeleryCommandException(f"{text}\nReason: {reason}", exit_code=EX_UNAVAILABLE) from exc


@contextlib.contextmanager
def reading_results() -> Iterator[None]:
    """Turn what keeps results from being read, a store that is away or none at all, into exit status 69.

    Raises:
        CeleryCommandException: says what to do.
    """
    from celery.exceptions import CeleryCommandException, OperationalError

    try:
        yield
    except OperationalError as exc:
        text = "Could not connect to the result backend. Is it running, and is its URL (result_backend) right?"
        raise CeleryCommandException(f"{text}\nReason: {exc}", exit_code=EX_UNAVAILABLE) from exc
    except NotImplementedError as exc:
        raise CeleryCommandException(str(exc), exit_code=EX_UNAVAILABLE) from exc


def handle_preload_options(f: F) -> F:
    """Mark a callback as one that plug-ins may add options to. `CeleryCommand` sees to them itself (CLI-018)."""
    return f


class CeleryOption(click.Option):
    """An option that stands in a group of the help, and may take its default from ``ctx.obj``.

    Args:
        args: of `click.Option`.
        help_group: heading to stand under; "Options" if None.
        default_value_from_context: name of the attribute of `CLIContext` to take the default from.
        kwargs: of `click.Option`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.help_group: str | None = kwargs.pop("help_group", None)
        self.default_value_from_context: str | None = kwargs.pop("default_value_from_context", None)
        super().__init__(*args, **kwargs)

    def get_default(self, ctx: click.Context, call: bool = True) -> Any:
        """Return the value of the option where nobody gives it."""
        if self.default_value_from_context and isinstance(ctx.obj, CLIContext):
            return getattr(ctx.obj, self.default_value_from_context)
        return super().get_default(ctx, call=call)


class CeleryCommand(click.Command):
    """A command with grouped help and the options that the application adds."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the command's own parameters and the added ones."""
        added = (*_user_options(ctx, "preload"), *_user_options(ctx, self.name))
        own = super().get_params(ctx)
        return [*own, *(option for option in added if option not in own)]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse; tell people who write a global option behind the command where it belongs."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as exc:
            if exc.option_name in GLOBAL_OPTIONS:
                click.secho(
                    f"`{exc.option_name}` is an option of celery, not of celery {self.name}: write it before the "
                    f"command, as in `celery {exc.option_name} ... {self.name} ...` (so since Celery 5.0).",
                    fg="red",
                    err=True,
                )
            raise

    def invoke(self, ctx: click.Context) -> Any:
        """Announce the values of preload options, then call the callback with those that it can take."""
        names = [option.name for option in _user_options(ctx, "preload") if option.name]
        values = {name: ctx.params.pop(name, None) for name in names}
        if values:
            signals.user_preload_options.send(sender=self.callback, app=ctx.obj.app, options=values)
            ctx.params.update({name: value for name, value in values.items() if _takes(self.callback, name)})
        return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under their headings."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                groups.setdefault(getattr(param, "help_group", None) or "Options", []).append(record)
        ungrouped = groups.pop("Options", [])
        for heading, records in [*groups.items(), ("Options", ungrouped)]:
            with formatter.section(heading):
                formatter.write_dl(records)


def _user_options(ctx: click.Context, kind: str | None) -> list[click.Option]:
    if not isinstance(ctx.obj, CLIContext):
        return []
    # A set: sorted, so that the help looks the same every time.
    return sorted(ctx.obj.app.user_options.get(kind or "", ()), key=lambda option: option.name)


def _takes(callback: Callable[..., Any] | None, name: str) -> bool:
    """Whether a callback has a parameter of this name, or takes any keyword."""
    while callback is not None and hasattr(callback, "__wrapped__"):
        callback = callback.__wrapped__
    return callback is not None and fun_takes_argument(name, callback)


class DaemonOption(CeleryOption):
    """An option of programs that can run in the background; falls back to the setting ``<command>_<option>``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("help_group", "Daemonization Options")
        kwargs.setdefault("callback", self.daemon_setting)
        super().__init__(*args, **kwargs)

    def daemon_setting(self, ctx: click.Context, opt: click.Parameter, value: Any) -> Any:
        """Return the value given, else that of the setting, else None."""
        if value or not isinstance(ctx.obj, CLIContext):
            return value
        return ctx.obj.app.conf.get(f"{ctx.command.name}_{opt.name}")


class CeleryDaemonCommand(CeleryCommand):
    """A command with the options of programs that can run in the background (CLI-040)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += [
            DaemonOption(("--logfile", "-f"), help="Log to this file instead of stderr."),
            DaemonOption(("--pidfile",), help="Write the process number to this file; refuse to start if it is taken."),
            DaemonOption(("--uid",), help="Run as this user."),
            DaemonOption(("--gid",), help="Run as this group."),
            DaemonOption(("--umask",), help="Permissions that new files lack, in octal."),
            DaemonOption(("--executable",), help="Python to run in the background."),
        ]
