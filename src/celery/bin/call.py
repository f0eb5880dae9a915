"""``celery call``: send a task by name (CLI-093)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from celery import exceptions
from celery.bin.base import (
    ISO8601,
    ISO8601_OR_FLOAT,
    JSON_ARRAY,
    JSON_OBJECT,
    CeleryCommand,
    CeleryOption,
    handle_preload_options,
    handle_remote_command_error,
)

if TYPE_CHECKING:
    from datetime import datetime

CALLING = "Calling Options"
ROUTING = "Routing Options"


@click.command("call", cls=CeleryCommand)
@click.argument("name")
@click.option("-a", "--args", cls=CeleryOption, type=JSON_ARRAY, default="[]", help_group=CALLING, help="Arguments.")
@click.option(
    "-k", "--kwargs", cls=CeleryOption, type=JSON_OBJECT, default="{}", help_group=CALLING, help="Arguments by name."
)
@click.option("--eta", cls=CeleryOption, type=ISO8601, help_group=CALLING, help="Do not run before this moment.")
@click.option("--countdown", cls=CeleryOption, type=float, help_group=CALLING, help="Do not run for so many seconds.")
@click.option(
    "--expires", cls=CeleryOption, type=ISO8601_OR_FLOAT, help_group=CALLING, help="Do not run after this moment."
)
@click.option("--serializer", cls=CeleryOption, default="json", help_group=CALLING, help="Serializer of the arguments.")
@click.option("--queue", cls=CeleryOption, help_group=ROUTING, help="Queue to send to.")
@click.option("--exchange", cls=CeleryOption, help_group=ROUTING, help="Exchange to send to.")
@click.option("--routing-key", cls=CeleryOption, help_group=ROUTING, help="Routing key.")
@click.pass_context
@handle_preload_options
def call(
    ctx: click.Context,
    name: str,
    args: list[Any],
    kwargs: dict[str, Any],
    eta: datetime | None,
    countdown: float | None,
    expires: datetime | float | None,
    serializer: str,
    queue: str | None,
    exchange: str | None,
    routing_key: str | None,
) -> None:
    """Call a task by name and print its id."""
    given = {
        "eta": eta,
        "countdown": countdown,
        "expires": expires,
        "serializer": serializer,
        "queue": queue,
        "exchange": exchange,
        "routing_key": routing_key,
    }
    options = {option: value for option, value in given.items() if value is not None}
    try:
        result = ctx.obj.app.send_task(name, args=args, kwargs=kwargs, **options)
    except exceptions.OperationalError as exc:
        handle_remote_command_error("call", exc)
    ctx.obj.echo(result.id)
