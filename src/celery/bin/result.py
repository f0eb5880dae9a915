"""``celery result``: what a task returned (CLI-094)."""

from __future__ import annotations

import click

from celery.bin.base import CeleryCommand, CeleryOption, handle_preload_options, reading_results

GROUP = "Result Options"


@click.command("result", cls=CeleryCommand)
@click.argument("task_id")
@click.option("-t", "--task", cls=CeleryOption, help_group=GROUP, help="Name of the task, if it has its own backend.")
@click.option("--traceback", cls=CeleryOption, is_flag=True, help_group=GROUP, help="Print the traceback, if any.")
@click.pass_context
@handle_preload_options
def result(ctx: click.Context, task_id: str, task: str | None, traceback: bool) -> None:
    """Print what a task returned.

    Waits for it to end; raises what it raised.
    """
    app = ctx.obj.app
    found = app.tasks[task].AsyncResult(task_id) if task else app.AsyncResult(task_id)
    with reading_results():
        stored = found.traceback or ""
    ctx.obj.echo(stored if traceback else found.get())
