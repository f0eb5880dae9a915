"""How workflows are written in logs and reprs (CANVAS-079)."""
from __future__ import annotations
from typing import Any

def short_repr(parts: list[str]) -> str:
    return " | ".join(parts)

def show_group(group: Any) -> str:
    return f"group({tuple(group.tasks)!r})" if len(group.tasks) else "group(<empty>)"

def show_chord(chord: Any) -> str:
    if chord.body is None:
        return f"<chord without body: {list(chord.tasks)!r}>"
    return f"%{chord.body.reprcall(tuple(chord.tasks))}"
