"""The calls of the seed, in a process of their own; the last line of output says, as JSON, what came of them.

``--with-worker``: a worker runs in this process, for brokers in memory.
"""

import json
import os
import sys
import threading
import time
import uuid

from proj.celery import app
from proj.lasting import last
from proj.tasks import add, mul, xsum

#: The seed says ``get(timeout=1)``; a busy machine may need longer for the first one.
PATIENCE = 20


def with_failure(res):
    error = res.get(timeout=PATIENCE, propagate=False)
    return [res.failed(), res.successful(), res.state, type(error).__name__]


def states_of_a_task_that_lasts():
    task_id, gate = uuid.uuid4().hex, os.path.abspath("gate")
    seen = [app.AsyncResult(task_id).state]
    res = last.apply_async((gate,), task_id=task_id)
    deadline = time.monotonic() + PATIENCE
    while (state := res.state) == "PENDING":
        assert time.monotonic() < deadline, "it never started"
        time.sleep(0.01)
    seen.append(state)
    with open(gate, "w"):
        assert res.get(timeout=PATIENCE) == "done"
    return [*seen, res.state]


def session():
    res = add.delay(2, 2)
    return {
        "called": add(2, 2),
        "delay": [res.get(timeout=PATIENCE), res.failed(), res.successful(), res.state],
        "apply_async": [
            mul.apply_async((2, 3)).get(timeout=PATIENCE),
            xsum.apply_async(args=[[1, 2, 3]]).get(timeout=PATIENCE),
        ],
        "failing": with_failure(add.delay(2, "2")),
        "unknown": app.AsyncResult("this-id-does-not-exist").state,
        "states": states_of_a_task_that_lasts(),
    }


def beside_a_worker():
    from celery.worker.worker import WorkController

    worker = WorkController(app, pool="solo", concurrency=1)
    thread = threading.Thread(target=worker.start)
    thread.start()
    assert worker.ready.wait(PATIENCE)
    try:
        return session()
    finally:
        worker.stop()
        thread.join()


if __name__ == "__main__":
    print(json.dumps(beside_a_worker() if "--with-worker" in sys.argv else session()))
