"""``celery settings``: settings that are set in vain, and all there are. Ours; not in Celery."""

from __future__ import annotations

import click

from celery.bin.base import CeleryCommand, handle_preload_options


@click.command("settings", cls=CeleryCommand)
@click.option("--reference", is_flag=True, help="Print every setting with its type, default and meaning.")
@click.pass_context
@handle_preload_options
def settings(ctx: click.Context, reference: bool) -> None:
    """List settings that have no effect.

    That is, those that are set and that this version does not act on.
    """
    if reference:
        _print_reference(ctx)
        return
    ignored = ctx.obj.app.conf.unacted()
    for name in ignored:
        ctx.obj.echo(name)
    if not ignored:
        ctx.obj.error("All settings that are set are acted on.")


def _print_reference(ctx: click.Context) -> None:
    from textwrap import fill

    from celery.app.defaults import ACTED_ON, OPTIONS

    for name, option in sorted(OPTIONS.items()):
        note = "" if name in ACTED_ON else " (not acted on yet)"
        title = ctx.obj.style(name, bold=True)
        ctx.obj.echo(f"{title}: {option.type}, {option.default!r}{note}")
        ctx.obj.echo(fill(option.doc, 100, initial_indent="    ", subsequent_indent="    "))
