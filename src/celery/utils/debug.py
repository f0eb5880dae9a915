"""Looking into a running process: its memory and its threads."""
from __future__ import annotations

import os
import sys
import threading
import traceback
from contextlib import contextmanager
from io import StringIO
from typing import TYPE_CHECKING, Any

from celery.platforms import signals
from celery.utils.saferepr import saferepr

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ("blockdetection", "cry", "humanbytes", "mem_rss", "memdump", "ps", "sample", "sample_mem")

_UNITS = ((2**40, "TB"), (2**30, "GB"), (2**20, "MB"), (2**10, "KB"), (0, "b"))

_samples: list[str] = []


@contextmanager
def blockdetection(timeout: float) -> Iterator[None]:
    """Raise RuntimeError in the block when it takes longer than ``timeout`` seconds; for the main thread."""
    if not timeout:
        yield
        return
    previous = signals["ALRM"]

    def on_alarm(*_: object) -> None:
        raise RuntimeError(f"blocked for more than {timeout} seconds")

    try:
        signals["ALRM"] = on_alarm
        signals.arm_alarm(timeout)
        yield
    finally:
        signals.reset_alarm()
        signals["ALRM"] = previous


def sample_mem() -> str | None:
    """Note the memory in use now, for `memdump`, and return it."""
    now = mem_rss()
    if now is not None:
        _samples.append(now)
    return now


def memdump(samples: int = 10, file: Any = None) -> None:
    """Print ``samples`` of the sizes noted by `sample_mem`, then the current one, and forget them."""
    if ps() is None:
        print("- rss: (psutil not installed).", file=file)
        return
    if _samples:
        print("- rss (sample):", file=file)
        for size in sample(_samples, samples):
            print(f"-    > {size},", file=file)
        _samples.clear()
    print(f"- rss (end): {mem_rss()}.", file=file)


def sample(x: Sequence[Any], n: int, k: int = 0) -> Iterator[Any]:
    """Yield ``n`` items, evenly spread and beginning at index ``k``."""
    step = max(len(x) // n, 1)
    for _ in range(n):
        if k >= len(x):
            return
        yield x[k]
        k += step


def hfloat(f: float, p: int = 5) -> str:
    """Return a number with ``p`` digits at most."""
    return str(int(f)) if float(f).is_integer() else f"{f:.{p}}"


def humanbytes(s: float) -> str:
    """Return a number of bytes in its largest unit: ``1.4648KB``."""
    size, unit = next((size, unit) for size, unit in _UNITS if s >= size)
    return f"{hfloat(s / size if size else s)}{unit}"


def mem_rss() -> str | None:
    """Return the memory in use; None without psutil."""
    process = ps()
    return None if process is None else humanbytes(process.memory_info().rss)


def ps() -> Any:
    """Return psutil's view of this process; None where psutil is not installed."""
    try:
        import psutil  # type: ignore[import-untyped,unused-ignore] # optional
    except ImportError:
        return None
    return psutil.Process(os.getpid())


def cry(out: Any = None, sepchr: str = "=", seplen: int = 49) -> str:
    """Return the stacks of all threads, as for a thread dump.

    Args:
        out: A file for text to write them to as well.
        sepchr: What the line between two threads is made of.
        seplen: Its length.
    """
    text = StringIO()
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    line = sepchr * seplen
    for ident, frame in sys._current_frames().items():
        text.write(f"{names.get(ident, ident)}\n{line}\n")
        traceback.print_stack(frame, file=text)
        text.write(f"{line}\nLOCAL VARIABLES\n{line}\n")
        for name, value in frame.f_locals.items():
            text.write(f"{name} = {saferepr(value, 1024)}\n")
        text.write("\n\n")
    if out is not None:
        out.write(text.getvalue())
    return text.getvalue()
