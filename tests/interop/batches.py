"""A project with batch tasks (celery-batches); run as a program it is the client, and prints what they returned."""

import json
import os

from celery_batches import Batches

from celery import Celery

app = Celery("batches", broker=os.environ["BATCHES_URL"], backend=os.environ["BATCHES_URL"])


def answer(requests):
    """Store for each request what it sent, and the size of its batch."""
    for request in requests:
        app.backend.mark_as_done(request.id, [request.args[0], len(requests)], request=request)


@app.task(base=Batches, flush_every=5, flush_interval=0.5)
def early(requests):
    """Acknowledged when its batch begins."""
    answer(requests)


@app.task(base=Batches, flush_every=5, flush_interval=0.5, acks_late=True)
def late(requests):
    """Acknowledged when its batch has ended."""
    answer(requests)


if __name__ == "__main__":
    from batches import early, late

    sent = {task.name: [task.delay(number) for number in range(12)] for task in (early, late)}
    print(json.dumps({name: [result.get(timeout=20) for result in results] for name, results in sent.items()}))
