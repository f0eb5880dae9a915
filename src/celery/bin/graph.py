"""``celery graph``: workflows as pictures.

The cluster's and the worker's own structure (CLI-101) come with those commands' parts.
"""

from __future__ import annotations

import inspect
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import click

from celery import states
from celery.bin.base import CeleryCommand, CeleryOption, handle_preload_options, reading_results
from celery.canvas import drawing
from celery.canvas.signature import maybe_signature
from celery.utils.imports import import_from_cwd, symbol_by_name

if TYPE_CHECKING:
    from collections.abc import Callable

GROUP = "Graph Options"
#: Formats that Graphviz makes.
_PICTURES = ("svg", "png")


@click.group("graph", cls=click.Group)
@click.pass_context
def graph(ctx: click.Context) -> None:
    """Draw workflows."""


def _format(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--format",
        "style",
        type=click.Choice(["dot", "mermaid", *_PICTURES]),
        default="dot",
        show_default=True,
        cls=CeleryOption,
        help_group=GROUP,
        help="Text for Graphviz or Mermaid, or a picture, which needs Graphviz's dot.",
    )(command)


@graph.command("workflow", cls=CeleryCommand)
@click.argument("path")
@_format
@click.pass_context
@handle_preload_options
def workflow(ctx: click.Context, path: str, style: str) -> None:
    """Draw a signature: PATH is module:name of one, or of a function that makes one."""
    ctx.obj.app.loader.import_default_modules()
    try:
        found = symbol_by_name(path, imp=import_from_cwd)
    except (ImportError, AttributeError, ValueError) as exc:
        raise click.UsageError(f"{path!r} cannot be imported: {exc}") from exc
    # Tasks and signatures can be called too, which is not what is asked for.
    if callable(found) and not hasattr(found, "apply_async"):
        try:
            inspect.signature(found).bind()
        except TypeError as exc:
            raise click.UsageError(f"{path!r} is called without arguments, and takes some: {exc}") from exc
        found = found()
    signature = maybe_signature(found, app=ctx.obj.app)
    if not isinstance(signature, dict):
        kind = "a task" if hasattr(found, "apply_async") else type(found).__name__
        raise click.UsageError(f"{path!r} is no signature but {kind}: name a chain, group, chord or task.s()")
    _show(drawing.of_signature(signature), style)


@graph.command("result", cls=CeleryCommand)
@click.argument("task_id")
@_format
@click.pass_context
@handle_preload_options
def result(ctx: click.Context, task_id: str, style: str) -> None:
    """Draw a task, all that came of it, and how far it is. TASK_ID may be a saved group's."""
    app = ctx.obj.app
    with reading_results():
        try:
            group = app.backend.restore_group(task_id)
        except NotImplementedError:  # as of rpc://
            group = None
        found = group or app.AsyncResult(task_id)
        picture = drawing.of_result(found)
        unknown = group is None and found.state == states.PENDING
    if unknown:
        text = f"No result of {task_id} is stored: not yet, not any more, not here, or there is no such task."
        click.echo(text, err=True)
    _show(picture, style)


def _show(picture: drawing.Drawing, style: str) -> None:
    if style == "mermaid":
        click.echo(picture.mermaid())
    elif style == "dot":
        click.echo(picture.dot())
    else:
        program = shutil.which("dot")
        if program is None:
            raise click.UsageError(f"--format {style} needs the program dot of Graphviz; dot and mermaid are text.")
        made = subprocess.run([program, f"-T{style}"], input=picture.dot().encode(), capture_output=True, check=False)  # noqa: S603 - a program of the user's, and our text
        if made.returncode:
            said = made.stderr.decode(errors="replace").strip()
            raise click.ClickException(f"{program} failed with exit status {made.returncode}: {said}")
        sys.stdout.buffer.write(made.stdout)
