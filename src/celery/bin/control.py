"""``celery status``, ``celery inspect`` and ``celery control``: talk to running workers (CLI-083..088).

A command is known here if its handler is registered here: that of a worker of this version, and those of the user's
application, which is imported. What follows the command on the line is mapped to the handler's arguments as its
declaration says (CTL-009).
"""

from __future__ import annotations

import json as _json
from typing import TYPE_CHECKING, Any

import click

from celery.bin.base import (
    COMMA_SEPARATED_LIST,
    CeleryCommand,
    CeleryOption,
    CLIContext,
    handle_preload_options,
    handle_remote_command_error,
)
from celery.exceptions import CeleryCommandException
from celery.platforms import EX_UNAVAILABLE
from celery.utils.text import pluralize

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    F = Callable[..., Any]

__all__ = ("control", "inspect", "status")

GROUP = "Remote Control Options"
NO_REPLY = "No nodes replied within time constraint"

Replies = list[dict[str, Any]]


def _commands(kind: str) -> dict[str, Any]:
    """The visible commands of a kind, "inspect" or "control", by name."""
    from celery.worker.control import Panel

    return {name: info for name, info in sorted(Panel.meta.items()) if info.type == kind and info.visible}


def _remote_control_options(fun: F) -> F:
    options = (
        click.option(
            "-t", "--timeout", cls=CeleryOption, type=float, default=1.0, help_group=GROUP,
            help="Seconds to wait for replies.",
        ),
        click.option(
            "-d", "--destination", cls=CeleryOption, type=COMMA_SEPARATED_LIST, help_group=GROUP,
            help="Only these nodes, by their full names.",
        ),
        click.option("-j", "--json", cls=CeleryOption, is_flag=True, help_group=GROUP, help="Print JSON."),
    )  # fmt: skip
    for option in reversed(options):
        fun = option(fun)
    return fun


def _list_commands(kind: str) -> Callable[[click.Context, click.Parameter, bool], None]:
    def show(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        del param
        if not value or ctx.resilient_parsing:
            return
        formatter = click.HelpFormatter(width=ctx.terminal_width)
        with formatter.section(f"{kind.capitalize()} Commands"):
            formatter.write_dl(
                [(f"{name} {info.signature or ''}".strip(), info.help or "") for name, info in _commands(kind).items()]
            )
        click.echo(formatter.getvalue(), nl=False)
        ctx.exit()

    return show


def _list_option(kind: str) -> Callable[[F], F]:
    return click.option(
        "--list", is_flag=True, is_eager=True, expose_value=False, callback=_list_commands(kind),
        help=f"List the {kind} commands and exit.",
    )  # fmt: skip


def _described(ctx: click.Context, kind: str, command: str) -> Any:
    known = _commands(kind)
    if command not in known:
        ctx.fail(f"Command {command} not recognized. Available {kind} commands: {', '.join(known)}")
    return known[command]


def _arguments(ctx: click.Context, command: str, info: Any, words: list[str]) -> dict[str, Any]:
    """Map words to the arguments that a command declares."""
    declared = list(info.args or ())
    rest = words[len(declared) :]
    if rest and not info.variadic:
        takes = f"takes arguments: {info.signature}" if info.signature else "takes no arguments"
        ctx.fail(f"Command {command} {takes}")
    arguments: dict[str, Any] = {}
    for (name, convert), word in zip(declared, words, strict=False):
        try:
            arguments[name] = convert(word) if convert else word
        except (TypeError, ValueError) as exc:
            ctx.fail(f"Command {command}: {word!r} does not do for {name}: {exc}")
    if info.variadic:
        arguments[info.variadic] = rest
    return arguments


def _ask(
    ctx: click.Context,
    command: str,
    arguments: Mapping[str, Any],
    timeout: float,
    destination: list[str] | None,
    show: Callable[[str, Any], None] | None,
) -> Replies:
    """Broadcast a command and collect the replies; each is shown as it arrives.

    Raises:
        CeleryCommandException: nobody replied, or the broker cannot be reached (status 69).
    """

    def arrived(reply: Mapping[str, Any]) -> None:
        if show is not None:
            for node, answer in reply.items():
                show(node, answer)

    try:
        replies: Replies = ctx.obj.app.control.broadcast(
            command,
            arguments=dict(arguments),
            reply=True,
            timeout=timeout,
            destination=destination,
            callback=arrived,
        )
    except Exception as exc:  # noqa: BLE001 - told with status 69, whatever it is (CLI-019)
        handle_remote_command_error(ctx.info_name or command, exc)
    if not replies:
        raise CeleryCommandException(message=NO_REPLY, exit_code=EX_UNAVAILABLE)
    return replies


def _shower(obj: CLIContext, *, body: bool) -> Callable[[str, Any], None]:
    def show(node: str, answer: Any) -> None:
        state, text = obj.pretty(answer)
        obj.say_chat("->", f"{node}: {state}", text, show_body=body)

    return show


def _by_node(replies: Replies) -> dict[str, Any]:
    return {node: answer for reply in replies for node, answer in reply.items()}


def _print_json(obj: CLIContext, value: Any) -> None:
    obj.echo(_json.dumps(value, default=repr))


def _count(obj: CLIContext, replies: Replies) -> None:
    nodes = len(_by_node(replies))
    obj.echo(f"\n{nodes} {pluralize(nodes, 'node')} online.")


@click.command("status", cls=CeleryCommand)
@_remote_control_options
@click.pass_context
@handle_preload_options
def status(ctx: click.Context, timeout: float, destination: list[str] | None, json: bool) -> None:
    """List the workers that are online."""
    obj = ctx.obj
    replies = _ask(ctx, "ping", {}, timeout, destination, None if json else _shower(obj, body=False))
    if json:
        _print_json(obj, _by_node(replies))
    _count(obj, replies)


@click.command("inspect", cls=CeleryCommand, context_settings={"allow_extra_args": True})
@click.argument("command")
@_list_option("inspect")
@_remote_control_options
@click.pass_context
@handle_preload_options
def inspect(ctx: click.Context, command: str, timeout: float, destination: list[str] | None, json: bool) -> None:
    """Ask workers how they are.

    `celery inspect --list` shows what can be asked.
    """
    obj = ctx.obj
    arguments = _arguments(ctx, command, _described(ctx, "inspect", command), ctx.args)
    replies = _ask(ctx, command, arguments, timeout, destination, None if json else _shower(obj, body=True))
    if json:
        _print_json(obj, _by_node(replies))
    elif not obj.quiet:
        _count(obj, replies)


@click.command("control", cls=CeleryCommand, context_settings={"allow_extra_args": True})
@click.argument("command")
@_list_option("control")
@_remote_control_options
@click.pass_context
@handle_preload_options
def control(ctx: click.Context, command: str, timeout: float, destination: list[str] | None, json: bool) -> None:
    """Tell workers what to do.

    `celery control --list` shows what they can be told.
    """
    arguments = _arguments(ctx, command, _described(ctx, "control", command), ctx.args)
    replies = _ask(ctx, command, arguments, timeout, destination, None if json else _shower(ctx.obj, body=True))
    if json:
        _print_json(ctx.obj, replies)
