"""Call tasks and look at their results; then give the worker the whole standard library to count.

Run it while `celery -A proj worker -l INFO -I proj.counting` runs in this folder.
"""

import sys
import sysconfig
import time
from pathlib import Path

from proj.celery import app
from proj.counting import count
from proj.tasks import add


def show(expression: str, value: object = None) -> None:
    """Print one step as an interactive session would."""
    print(f">>> {expression}")
    if value is not None:
        print(repr(value))


def first_steps() -> None:
    """Results that come, that fail, and that nobody ever asked for."""
    res = add.delay(2, 2)
    show("res = add.delay(2, 2)")
    show("res.get(timeout=1)", res.get(timeout=1))
    show("res.id", res.id)
    show("res.failed(), res.successful()", (res.failed(), res.successful()))
    show("res.state", res.state)

    res = add.delay(2, "2")
    show("res = add.delay(2, '2')")
    show("res.get(timeout=1, propagate=False)", res.get(timeout=1, propagate=False))
    show("res.failed(), res.successful()", (res.failed(), res.successful()))
    show("res.state", res.state)

    res = app.AsyncResult("this-id-does-not-exist")
    show("res = app.AsyncResult('this-id-does-not-exist')")
    show("res.state", res.state)


def progress(done: int, total: int) -> None:
    """A bar that redraws itself in a terminal, one plain line per quarter anywhere else."""
    if sys.stdout.isatty():
        bar = "#" * (40 * done // total)
        print(f"\r  [{bar:.<40}] {done}/{total}", end="\n" if done == total else "", flush=True)
    elif 4 * done // total > 4 * (done - 1) // total:
        print(f"  {done}/{total}", flush=True)


def count_standard_library() -> None:
    """One task per file; what cannot be read is counted as such and shown."""
    library = Path(sysconfig.get_path("stdlib"))
    files = sorted(path for path in library.rglob("*.py") if "site-packages" not in path.parts)
    print(f"\nCounting the {len(files)} Python files of the standard library, one task each:")
    began = time.perf_counter()
    results = [count.delay(str(path)) for path in files]
    words = lines = unread = 0
    for done, res in enumerate(results, start=1):
        value = res.get(timeout=60, propagate=False)
        if res.successful():
            words += value[0]
            lines += value[1]
        else:
            unread += 1
        progress(done, len(files))
    took = time.perf_counter() - began
    print(f"{words:,} words in {lines:,} lines of {len(files) - unread:,} files;", end=" ")
    print(f"{unread} could not be read (they test bad encodings)." if unread else "all of them could be read.")
    print(f"{len(files):,} tasks sent, run and answered in {took:.1f} s: {len(files) / took:,.0f} tasks/s.")


if __name__ == "__main__":
    first_steps()
    count_standard_library()
