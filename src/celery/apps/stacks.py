"""Where every thread is, for somebody who asks why a worker hangs (CLI-056)."""

from __future__ import annotations

import reprlib
import sys
import threading
import traceback

__all__ = ("all_stacks",)

_RULE = "=" * 49


def all_stacks() -> str:
    """Return the stack, and the local variables of its innermost function, of every thread of this process."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts: list[str] = []
    for ident, frame in sys._current_frames().items():
        stack = "".join(traceback.format_stack(frame))
        # reprlib: short, and it survives objects whose own repr fails.
        local = "\n".join(f"  {name} = {reprlib.repr(value)}" for name, value in frame.f_locals.items())
        parts += [names.get(ident, f"thread {ident}"), _RULE, stack, _RULE, "LOCAL VARIABLES", _RULE, local, ""]
    return "\n".join(parts) + "\n"
