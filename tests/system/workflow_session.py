"""Random workflows in a process of their own, where broker and results are in memory.

    workflow_session.py memory|eager HOW_MANY

`memory`: a worker runs in this process. `eager`: tasks run in place; workflows do not fail then, as eager mode raises
what a step raised instead of going on (CANVAS-074).
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from harness import Ledger
from workflows import run_many


def main():
    """Run them."""
    mode, how_many = sys.argv[1], int(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger")
        os.environ |= {
            "SYSTEM_BROKER": "memory://",
            "SYSTEM_BACKEND": "cache+memory://",
            "SYSTEM_CONF": "{}",
            "SYSTEM_LEDGER": str(ledger.path),
        }
        from project import app

        if mode == "eager":
            app.conf.task_always_eager = True
            run_many(app, ledger, how_many, failing=False)
        else:
            from celery.contrib.testing.worker import start_worker

            with start_worker(app, perform_ping_check=False):
                run_many(app, ledger, how_many)


if __name__ == "__main__":
    main()
