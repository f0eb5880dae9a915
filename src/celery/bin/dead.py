"""``celery dead``: messages that workers refused. Ours; not in Celery.

A message that no worker can read, or whose task nobody knows or rejects, goes to the dead queue of its queue, where it
stays until it is sent again or thrown away.
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

GROUP = "Dead Letter Options"
#: Letters listed of each queue unless -n says otherwise.
LISTED = 100
ELSEWHERE = """\
This broker keeps no list of refused messages: it gives them to the dead-letter exchange of their queue, if it has one.
To keep them, set x-dead-letter-exchange among the queue_arguments of the queue and bind a queue to that exchange. To
send them again, move that queue's messages back: "Move messages" on the management page (a shovel)."""


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
    names = sorted(queues or ctx.obj.app.amqp.queues)
    if action == "purge" and not force:
        click.confirm(f"Erase all dead letters of {', '.join(names)}? They cannot be brought back.", abort=True)
    actions = {"list": _list, "replay": _replay, "purge": _purge}

    def act(sender: Sender) -> list[str]:
        if not sender.capabilities.dead_letters:
            raise click.ClickException(ELSEWHERE)
        return [line for name in names for line in actions[action](sender, name, limit)]

    try:
        lines = ctx.obj.app.publisher.run(act)
    except exceptions.OperationalError as exc:
        handle_remote_command_error("dead", exc)
    _print(ctx.obj, lines)


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
