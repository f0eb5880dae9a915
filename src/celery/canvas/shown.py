"""How workflows are written in logs and reprs (CANVAS-079): the module of the first task is named once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.canvas.algebra import CHAIN, kind_of, size_known

if TYPE_CHECKING:
    from celery.canvas.signature import Signature

    Sig = Signature[Any]


def show_chain(chain: Sig) -> str:
    """`proj.add(1, 1) | add(2)`."""
    steps = chain.kwargs["tasks"]
    if not steps:
        return f"<{type(chain).__name__}@{id(chain):#x}: empty>"
    return _once(" | ".join(map(repr, steps)), steps[0])


def show_group(group: Sig) -> str:
    """`group((proj.add(1, 1), add(2, 2)))`."""
    members = group.kwargs["tasks"]
    if not size_known(members):
        return "group(<generator>)"
    return _once(f"group({members!r})", members[0]) if members else "group(<empty>)"


def show_chord(header: Any, body: Sig | None) -> str:
    """`%proj.xsum([add(1, 1), add(2, 2)])`: the body, called with its header."""
    if body is None:
        return f"<chord without body: {header!r}>"
    if kind_of(body) != CHAIN or not body.kwargs["tasks"]:
        return _once(f"%{body.reprcall(header)}", body)
    first, *rest = body.kwargs["tasks"]
    return _once(f"%({' | '.join([first.reprcall(header), *map(repr, rest)])})", first)


def _once(text: str, first: Sig) -> str:
    """The text without repeating the module of a task."""
    module, dot, _ = first["task"].rpartition(".")
    before, found, after = text.partition(module + dot)
    return before + found + after.replace(module + dot, "") if dot else text
