"""``celery report``: what a bug report needs (CLI-097)."""

from __future__ import annotations

import click

from celery.bin.base import CeleryCommand, handle_preload_options


@click.command("report", cls=CeleryCommand)
@click.pass_context
@handle_preload_options
def report(ctx: click.Context) -> None:
    """Print what a bug report needs."""
    app = ctx.obj.app
    app.loader.import_default_modules()
    ctx.obj.echo(app.bugreport())
