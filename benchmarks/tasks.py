"""The tasks that both sides run, and the one setting in which the sides differ.

Compare with ``benchmarks/compare.py``; broker and result backend come from its environment.
"""

from __future__ import annotations

import importlib.metadata
import os

import ledger

from celery import Celery

app = Celery("tasks", broker=os.environ["BENCH_BROKER"], backend=os.environ.get("BENCH_BACKEND"))
try:
    importlib.metadata.distribution("celeriac")
except importlib.metadata.PackageNotFoundError:
    # The default of 4 starves Celery's children on tasks this short; ours adapts by itself.
    app.conf.worker_prefetch_multiplier = 64


@app.task(ignore_result=True)
def noop() -> None:
    """Nothing but its own completion, on record."""
    ledger.completed()


@app.task
def add(x: int, y: int) -> int:
    """A result worth storing, and its completion on record."""
    ledger.completed()
    return x + y
