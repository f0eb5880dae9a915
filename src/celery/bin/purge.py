"""``celery purge``: throw waiting messages away (CLI-095)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from celery import exceptions
from celery.bin.base import (
    COMMA_SEPARATED_LIST,
    CeleryCommand,
    CeleryOption,
    handle_preload_options,
    handle_remote_command_error,
)
from celery.utils.text import pluralize

if TYPE_CHECKING:
    from celery.brokers.base import Sender

GROUP = "Purging Options"


@click.command("purge", cls=CeleryCommand)
@click.option("-f", "--force", cls=CeleryOption, is_flag=True, help_group=GROUP, help="Do not ask.")
@click.option(
    "-Q", "--queues", cls=CeleryOption, type=COMMA_SEPARATED_LIST, help_group=GROUP, help="Only these queues."
)
@click.option(
    "-X", "--exclude-queues", cls=CeleryOption, type=COMMA_SEPARATED_LIST, help_group=GROUP, help="Not these queues."
)
@click.pass_context
@handle_preload_options
def purge(ctx: click.Context, force: bool, queues: list[str] | None, exclude_queues: list[str] | None) -> None:
    """Erase all messages in the task queues.

    They cannot be brought back.
    """
    app = ctx.obj.app
    names = sorted(set(queues or app.amqp.queues) - set(exclude_queues or ()))
    known = pluralize(len(names), "queue")
    if not names:
        ctx.obj.echo("No queue is left to purge.")
        return
    if not force:
        warning = ctx.obj.style("WARNING", fg="red")
        ctx.obj.echo(f"{warning}: this erases all messages of the {known} {', '.join(names)}.")
        ctx.obj.echo("They cannot be brought back. (-f skips this question.)\n")
        click.confirm("Are you sure you want to delete all tasks?", abort=True)

    def purge_all(sender: Sender) -> int:
        return sum(sender.purge(name) for name in names)

    try:
        erased = app.publisher.run(purge_all)
    except exceptions.OperationalError as exc:
        handle_remote_command_error("purge", exc)
    if erased:
        messages = pluralize(erased, "message")
        ctx.obj.echo(f"Purged {erased} {messages} from {len(names)} known task {known}.")
    else:
        ctx.obj.echo(f"No messages purged from {len(names)} {known}.")
