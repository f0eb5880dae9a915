"""The producer's part of a workload, run by the interpreter of either side: prints one JSON object.

python adapter.py send TASK N        send N tasks one by one
python adapter.py roundtrip N        send, wait for the result, N times
python adapter.py verify             check the results of the ids on standard input
"""

from __future__ import annotations

import json
import statistics
import sys
import time

import tasks

#: How long one result may take; far above anything that happens when nothing is broken.
RESULT_SECONDS = 10.0
#: Sends and round trips before the clock starts: connections are made, lazy modules loaded.
WARM_UP = 20


def send(name: str, count: int) -> dict[str, object]:
    """Send tasks one by one, as a web view would; how many per second, and the ids."""
    task, args = (tasks.add, (2, 3)) if name == "add" else (tasks.noop, ())
    ids = [task.delay(*args).id for _ in range(WARM_UP)]
    began = time.perf_counter()
    ids += [task.delay(*args).id for _ in range(count - WARM_UP)]
    took = time.perf_counter() - began
    return {"sends_per_second": (count - WARM_UP) / took, "ids": ids}


def roundtrip(count: int) -> dict[str, object]:
    """Send a task and wait for its result, one at a time; milliseconds."""
    times = []
    for number in range(WARM_UP + count):
        began = time.perf_counter()
        result = tasks.add.delay(number, 1).get(timeout=RESULT_SECONDS)
        times.append(1000 * (time.perf_counter() - began))
        if result != number + 1:
            raise AssertionError(f"{number} + 1 came back as {result!r}")
    centiles = statistics.quantiles(times[WARM_UP:], n=100)
    return {"p50_ms": centiles[49], "p99_ms": centiles[98]}


def verify(ids: list[str]) -> dict[str, object]:
    """Check that each result is there and right: a worker may not be fast by leaving work out."""
    wrong = [task_id for task_id in ids if tasks.app.AsyncResult(task_id).get(timeout=RESULT_SECONDS) != 5]
    return {"wrong": wrong}


def main() -> None:
    """Do what the command line says."""
    match sys.argv[1:]:
        case ["send", name, count]:
            answer = send(name, int(count))
        case ["roundtrip", count]:
            answer = roundtrip(int(count))
        case ["verify"]:
            answer = verify(json.load(sys.stdin))
        case _:
            raise SystemExit(__doc__)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
