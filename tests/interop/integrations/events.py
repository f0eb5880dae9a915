"""A project that Sentry watches, whose children end after each task. As a script it is the project's client."""

import json
import os

import sentry_sdk
from sentry_sdk.integrations.celery import CeleryIntegration

from celery import Celery

#: No result takes longer, in seconds.
SOON = 30
FOLDER = os.environ["PROJECT"]


sentry_sdk.init(os.environ["PROJECT_SENTRY"], traces_sample_rate=1.0, integrations=[CeleryIntegration()])

app = Celery("events", broker=f"sqlite:///{FOLDER}/celery.sqlite", backend=f"sqlite:///{FOLDER}/celery.sqlite")
app.conf.worker_max_tasks_per_child = 1


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
