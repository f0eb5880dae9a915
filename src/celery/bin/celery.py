"""The command ``celery``: global options, finding the application, finding commands (CLI-001..020)."""

from __future__ import annotations

import os
import sys
import traceback
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from celery import VERSION_BANNER
from celery._state import get_current_app
from celery.bin.base import CLIContext
from celery.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.metadata import EntryPoint

    from celery.app.base import Celery

__all__ = ("celery", "main", "run")

#: Command -> where it is; imported when it is called for.
COMMANDS = {
    "call": "celery.bin.call:call",
    "control": "celery.bin.control:control",
    "dead": "celery.bin.dead:dead",
    "graph": "celery.bin.graph:graph",
    "inspect": "celery.bin.control:inspect",
    "list": "celery.bin.list:list_",
    "purge": "celery.bin.purge:purge",
    "report": "celery.bin.report:report",
    "result": "celery.bin.result:result",
    "settings": "celery.bin.settings:settings",
    "status": "celery.bin.control:status",
    "worker": "celery.bin.worker:worker",
}
#: Commands of Celery that this version does not have.
ABSENT = frozenset({"amqp", "beat", "events", "logtool", "migrate", "multi", "shell", "upgrade"})
PLUGINS = "celery.commands"
NO = frozenset({"0", "f", "false", "n", "no", "off"})


class CommandGroup(click.Group):
    """Knows commands by name, ours and those of plug-ins, and loads one when it is called for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all names."""
        return sorted({*super().list_commands(ctx), *COMMANDS, *_plugins()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a command; None if there is none of this name."""
        if cmd_name in COMMANDS:
            module, _, name = COMMANDS[cmd_name].partition(":")
            command: click.Command = getattr(import_module(module), name)
            return command
        plugin = super().get_command(ctx, cmd_name) or _plugins().get(cmd_name)
        return plugin if plugin is None or isinstance(plugin, click.Command) else _load_plugin(plugin)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command to run; tell what an unknown one may have meant."""
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            if name in ABSENT:
                ctx.fail(f"The command {name!r} of Celery is not in this version.")
            from difflib import get_close_matches

            similar = get_close_matches(name, self.list_commands(ctx), cutoff=0.5)
            hint = "\n\nDid you mean one of these?\n    " + "\n    ".join(similar) if similar else ""
            ctx.fail(f"No such command {name!r}.{hint}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run; a mistake in the settings is told without a traceback."""
        try:
            return super().invoke(ctx)
        except ImproperlyConfigured as exc:
            raise click.ClickException(str(exc)) from exc


class Switch(click.Option):
    """A flag that its environment variable sets, whatever it holds: words that say no are the exception."""

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """Read."""
        value = super().resolve_envvar_value(ctx)
        return value and ("0" if value.strip().lower() in NO else "1")


def _plugins() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group=PLUGINS)}


def _load_plugin(entry: EntryPoint) -> click.Command:
    """Load a plug-in; one that cannot be loaded becomes a command that says why (CLI-017)."""
    try:
        command = entry.load()
        if not isinstance(command, click.Command):
            raise TypeError(f"{entry.value} is no click command but {command!r}")  # noqa: TRY301 - told like the others
    except Exception:  # noqa: BLE001 - whatever a plug-in raises, the other commands go on
        return _broken(entry, traceback.format_exc())
    return command


def _broken(entry: EntryPoint, reason: str) -> click.Command:
    def tell() -> None:
        raise click.ClickException(f"The plug-in {entry.name!r} ({entry.value}) could not be loaded:\n\n{reason}")

    short = "This plug-in could not be loaded; call it to see why."
    return click.Command(
        entry.name, callback=tell, help=short, context_settings={"ignore_unknown_options": True},
        params=[click.Argument(("arguments",), nargs=-1, expose_value=False)],
    )  # fmt: skip


def _change_directory(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    del ctx, param
    if value:
        os.chdir(value)
    return value


def _show_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    del param
    if value and not ctx.resilient_parsing:
        click.echo(VERSION_BANNER)
        ctx.exit()


@click.group(cls=CommandGroup, invoke_without_command=True)
@click.option("-A", "--app", envvar=["APP", "CELERY_APP"], help="The application: module, module:attribute or package.")
@click.option("-b", "--broker", envvar=["BROKER_URL"], help="URL of the broker, in place of broker_url.")
@click.option("--result-backend", envvar=["RESULT_BACKEND"], help="URL of the results, in place of result_backend.")
@click.option("--loader", envvar=["LOADER"], help="Class that loads configuration and tasks.")
@click.option("--config", envvar=["CONFIG_MODULE"], help="Module with the settings.")
@click.option(
    "--workdir", type=click.Path(exists=True, file_okay=False), is_eager=True, callback=_change_directory,
    help="Directory to change to before anything else.",
)  # fmt: skip
@click.option("-C", "--no-color", cls=Switch, envvar=["NO_COLOR"], is_flag=True, help="No colours.")
@click.option("-q", "--quiet", is_flag=True, help="Print less.")
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="The version.")
@click.option(
    "--skip-checks", cls=Switch, envvar=["SKIP_CHECKS"], is_flag=True, help="Skip the system checks of Django."
)
@click.pass_context
def celery(
    ctx: click.Context,
    app: str | None,
    broker: str | None,
    result_backend: str | None,
    loader: str | None,
    config: str | None,
    workdir: str | None,
    no_color: bool,
    quiet: bool,
    skip_checks: bool,
) -> None:
    """Run tasks, and look after the workers that run them."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
        return
    exported = {
        "CELERY_BROKER_URL": broker,
        "CELERY_RESULT_BACKEND": result_backend,
        "CELERY_LOADER": loader,
        "CELERY_CONFIG_MODULE": config,
        "CELERY_SKIP_CHECKS": "true" if skip_checks else None,
    }
    os.environ.update({name: value for name, value in exported.items() if value})
    found = _find_app(ctx, app) if app else ctx.obj or get_current_app()
    ctx.obj = CLIContext(app=found, no_color=no_color, workdir=workdir, quiet=quiet)


def _find_app(ctx: click.Context, path: str) -> Celery:
    """Find the application that ``-A`` names (CLI-015)."""
    from celery.app.base import Celery
    from celery.app.utils import find_app

    try:
        found = find_app(path)
        if isinstance(found, Celery):
            return found
        reason = f"{path} is no application but {found!r}."
    except ModuleNotFoundError as exc:
        parts = path.replace(":", ".") + "."
        missing = exc.name is not None and parts.startswith(exc.name + ".")
        reason = f"The module {path} was not found." if missing else traceback.format_exc()
    except AttributeError as exc:
        text = str(exc)
        reason = text[:1].upper() + text[1:]
    except Exception:  # noqa: BLE001 - whatever the module raises while it is imported, its traceback says it best
        reason = traceback.format_exc()
    raise click.UsageError(f"\nUnable to load celery application.\n{reason}", ctx=ctx)


def main() -> Any:
    """Run the command line of this process; exits with its status."""
    return celery(auto_envvar_prefix="CELERY")


def run(app: Celery, argv: Sequence[str]) -> int:
    """Run a command on *app*, unless *argv* names another with ``-A``; return its exit status (CLI-001).

    Args:
        app: the application.
        argv: what follows ``celery`` on the command line.
    """
    try:
        status = celery.main(
            args=list(argv), prog_name="celery", standalone_mode=False, obj=app, auto_envvar_prefix="CELERY"
        )
    except click.ClickException as exc:
        exc.show()
        return exc.exit_code
    except click.Abort:
        click.echo("Aborted!", file=sys.stderr)
        return 1
    return status if isinstance(status, int) else 0
