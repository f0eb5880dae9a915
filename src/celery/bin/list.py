"""``celery list bindings``: which queues are bound where (CLI-096)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from celery import exceptions
from celery.bin.base import CeleryCommand, handle_preload_options, handle_remote_command_error

if TYPE_CHECKING:
    from collections.abc import Iterable

    from celery.brokers.base import Sender

UNSUPPORTED = """\
Your transport cannot list bindings.
For RabbitMQ, ask its server: rabbitmqctl list_bindings, or its management page."""


@click.group("list")
def list_() -> None:
    """Ask the broker."""


@list_.command("bindings", cls=CeleryCommand)
@click.pass_context
@handle_preload_options
def bindings(ctx: click.Context) -> None:
    """List the bindings of the exchanges that the application's queues are bound to.

    Declares these queues first.
    """
    queues = list(ctx.obj.app.amqp.queues.values())
    exchanges = sorted({bound.exchange.name for queue in queues for bound in queue.all_bindings()} - {""})

    def ask(sender: Sender) -> list[tuple[str, str, str]]:
        sender.declare(queues)
        return [(queue, exchange, key) for exchange in exchanges for queue, key in sender.bindings(exchange)]

    try:
        found = ctx.obj.app.publisher.run(ask)
    except NotImplementedError as exc:
        raise click.UsageError(UNSUPPORTED, ctx=ctx) from exc
    except exceptions.OperationalError as exc:
        handle_remote_command_error("list bindings", exc)
    for row in [("Queue", "Exchange", "Routing Key"), ("-" * 16,) * 3, *found]:
        ctx.obj.echo(_line(row))


def _line(row: Iterable[str]) -> str:
    return " ".join(f"{text:<28}" for text in row).rstrip()
