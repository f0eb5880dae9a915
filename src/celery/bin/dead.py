"""``celery dead``: messages that workers refused. Ours; not in Celery.

A message that no worker can read, or whose task nobody knows or rejects, goes to the dead queue of its queue, where it
stays until it is sent again or thrown away. On RabbitMQ, one with a dead-letter exchange of its own has no dead queue.
"""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

import click

from celery import exceptions
from celery.bin.base import COMMA_SEPARATED_LIST, CeleryCommand, CeleryOption, handle_remote_command_error
from celery.utils.text import pluralize, truncate

if TYPE_CHECKING:
    from celery.bin.base import CLIContext
    from celery.brokers.base import DeadLetter, Sender
    from celery.brokers.topology import Queue

GROUP = "Dead Letter Options"
#: Letters listed of each queue unless -n says otherwise.
LISTED = 100


@click.command("dead", cls=CeleryCommand)
@click.argument("action", type=click.Choice(["list", "replay", "purge"]), default="list")
@click.option(
    "-Q", "--queues", cls=CeleryOption, type=COMMA_SEPARATED_LIST, help_group=GROUP, help="Only these queues."
)
@click.option(
    "-n", "--limit", cls=CeleryOption, type=click.IntRange(min=1), help_group=GROUP,
    help=f"At most so many of each queue: the latest when listed ({LISTED}), the earliest when replayed (all).",
)  # fmt: skip
@click.option("-f", "--force", cls=CeleryOption, is_flag=True, help_group=GROUP, help="Purge without asking.")
@click.pass_context
def dead(ctx: click.Context, action: str, queues: list[str] | None, limit: int | None, force: bool) -> None:
    """List, send again or erase messages that were refused.

    `list` shows them; `replay` sends them to their queues again; `purge` erases them.
    """
    if action == "purge" and limit is not None:
        raise click.UsageError("purge erases all: it takes no -n.", ctx=ctx)
    known = ctx.obj.app.amqp.queues
    names = sorted(queues or known)
    if action == "purge" and not force:
        click.confirm(f"Erase all dead letters of {', '.join(names)}? They cannot be brought back.", abort=True)
    actions = {"list": _list, "replay": _replay, "purge": _purge}

    def act(sender: Sender) -> list[str]:
        lines = []
        for name in names:
            exchange = _exchange(known[name]) if name in known and sender.capabilities.dead_letter_exchanges else None
            if exchange is None:
                lines += actions[action](sender, name, limit)
            else:
                lines.append(f"{name}: what it refuses goes to its own x-dead-letter-exchange {exchange!r}, not here")
        return lines

    try:
        lines = ctx.obj.app.publisher.run(act)
    except exceptions.OperationalError as exc:
        handle_remote_command_error("dead", exc)
    _print(ctx.obj, lines)


def _exchange(queue: Queue) -> str | None:
    exchange: str | None = queue.declared_arguments().get("x-dead-letter-exchange")
    return exchange


def _print(out: CLIContext, lines: list[str]) -> None:
    for line in lines:
        out.echo(line)


def _list(sender: Sender, queue: str, limit: int | None) -> list[str]:
    letters = sender.dead_letters(queue, limit or LISTED)
    count = sender.length(f"{queue}.dead")
    shown = f", the latest {len(letters)}" if len(letters) < count else ""
    return [f"{queue}: {count} dead {pluralize(count, 'letter')}{shown}", *(f"  {_line(letter)}" for letter in letters)]


def _replay(sender: Sender, queue: str, limit: int | None) -> list[str]:
    sent = sender.replay(queue, limit or sender.length(f"{queue}.dead"))
    left = sender.length(f"{queue}.dead")
    return [f"{queue}: sent {sent} {pluralize(sent, 'message')} again, {left} left"]


def _purge(sender: Sender, queue: str, _limit: int | None) -> list[str]:
    erased = sender.purge(f"{queue}.dead")
    return [f"{queue}: erased {erased} dead {pluralize(erased, 'letter')}"]


def _line(letter: DeadLetter) -> str:
    """When, what, why."""
    moment = datetime.datetime.fromtimestamp(letter.time).astimezone() if letter.time else None
    when = moment.strftime("%Y-%m-%d %H:%M:%S") if moment else "?"
    if isinstance(letter.message, bytes):
        what = truncate(repr(letter.message), 80)
    else:
        headers: dict[str, Any] = letter.message.headers
        what = f"{headers.get('task')}[{headers.get('id')}]"
    return f"{when}  {what}  {letter.reason}"
