"""A project that Sentry watches; each process adds what it would send to a file. As a script it is the client."""

import json
import os

import sentry_sdk
from sentry_sdk.integrations.celery import CeleryIntegration
from sentry_sdk.transport import Transport

from celery import Celery

#: No result takes longer, in seconds.
SOON = 30
FOLDER = os.environ["PROJECT"]


class ToFile(Transport):
    def capture_envelope(self, envelope):
        with open(f"{FOLDER}/told", "a") as file:
            for item in envelope.items:
                event = item.payload.json
                told = {
                    "type": item.type,
                    "name": event["transaction"],
                    "trace": event["contexts"]["trace"]["trace_id"],
                    "status": event["contexts"]["trace"].get("status"),
                    "task": event.get("tags", {}).get("celery_task_id"),
                    "errors": [error["type"] for error in event.get("exception", {}).get("values", ())],
                    "spans": [span["op"] for span in event.get("spans", ())],
                }
                file.write(json.dumps(told) + "\n")


# Nothing listens there: the transport writes to a file.
sentry_sdk.init(
    "http://key@127.0.0.1:9/1", transport=ToFile, traces_sample_rate=1.0, integrations=[CeleryIntegration()]
)

app = Celery("events", broker=f"sqlite:///{FOLDER}/celery.sqlite", backend=f"sqlite:///{FOLDER}/celery.sqlite")


@app.task
def add(x, y):
    return x + y


@app.task
def fail():
    raise KeyError("nothing")


if __name__ == "__main__":
    with sentry_sdk.start_transaction(name="client"):
        sent = [add.delay(1, 2), fail.delay()]
    for result in sent:
        result.get(timeout=SOON, propagate=False)
    print(json.dumps([result.id for result in sent]))
