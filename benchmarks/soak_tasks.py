"""The task of the soak: it takes a while, then writes its number into a ledger that survives everything."""

from __future__ import annotations

import os
import time

from celery import Celery

app = Celery("soak_tasks", broker=os.environ["BENCH_BROKER"])
app.conf.update(task_acks_late=True, task_reject_on_worker_lost=True, task_ignore_result=True)


@app.task
def work(number: int, seconds: float) -> None:
    """Take some seconds; then it is done, and on record."""
    time.sleep(seconds)
    # One short write to a file opened for appending is whole or absent.
    ledger = os.open(os.environ["BENCH_LEDGER"], os.O_WRONLY | os.O_APPEND)
    os.write(ledger, f"{number}\n".encode())
    os.close(ledger)
