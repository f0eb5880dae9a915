"""One task and a recorder, for `test_road`: each call of a function that the road names is a line in a file.

Imported by the worker (``celery -A road worker``), run as a program by the producer. The recorder is installed in the
thread that imports this, and forked processes inherit it. A coroutine is recorded each time it goes on.

``ROAD_STEPS`` is a JSON list of [file below the package, qualified name]; ``ROAD_LOG`` is the file.
"""

import json
import os
import sys
import time

import celery
from celery import Celery

ROOT = os.path.dirname(celery.__file__) + os.sep
STEPS = {(file, name) for file, name in json.loads(os.environ["ROAD_STEPS"])}
LOG = os.open(os.environ["ROAD_LOG"], os.O_WRONLY | os.O_APPEND)
PATIENCE = 20


def record(frame, event, _):
    if event == "call":
        code = frame.f_code
        step = code.co_filename.removeprefix(ROOT), code.co_qualname
        if step in STEPS:
            os.write(LOG, f"{time.monotonic_ns()} {os.getpid()} {step[0]} {step[1]}\n".encode())


app = Celery("road", broker=os.environ["ROAD_URL"], backend=os.environ["ROAD_URL"])


@app.task(name="road.add")
def add(x, y):
    return x + y


def is_settled():
    """Whether the worker has settled the attempt: only then is it certain that `get` comes last."""
    with open(os.environ["ROAD_LOG"]) as log:
        names = [line.split()[3] for line in log]
    return "Consumer.finished" in names and "Receiver.settle" in names[names.index("Consumer.finished") :]


def main():
    res = add.delay(2, 2)
    deadline = time.monotonic() + PATIENCE
    while not is_settled():
        if time.monotonic() > deadline:
            raise SystemExit("not settled")
        time.sleep(0.01)
    print(os.getpid(), res.get(timeout=PATIENCE))


sys.setprofile(record)
if __name__ == "__main__":
    main()
