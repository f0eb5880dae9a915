"""A chord whose producer is killed while it sends the header ends: a worker fails it."""

from __future__ import annotations

import subprocess
import sys
import uuid

import pytest
from harness import Stage, wait_until

from celery.exceptions import ChordError

#: Sends the members of a header until it is killed.
PRODUCER = """
import sys, time
from celery import Celery, chord, signature

broker, backend, queue, body = sys.argv[1:]
app = Celery(broker=broker, backend=backend)
app.conf.task_default_queue = queue

def members():
    for number in range(100):
        yield signature("project.add", (number, 1), app=app)
    print("half way", flush=True)
    time.sleep(60)

chord(members(), signature("project.record", (body,), app=app, task_id=body)).apply_async()
"""


@pytest.mark.timeout(90)
@pytest.mark.parametrize("name", ["sqlite", pytest.param("redis", marks=pytest.mark.needs("redis")), "database"])
def test_a_chord_whose_producer_was_killed_fails(make_stage, tmp_path, name):
    stage = make_stage("sqlite" if name == "database" else name)
    if name == "database":
        stage = Stage(name, stage.broker, f"db+sqlite:///{tmp_path / 'results.sqlite'}", tmp_path)
    worker, body = stage.worker(), str(uuid.uuid4())
    wait_until(lambda: stage.app.backend.chords.counts({}), "a worker that looks after chords")
    arguments = (stage.broker, stage.backend, stage.queue, body)
    with subprocess.Popen([sys.executable, "-c", PRODUCER, *arguments], stdout=subprocess.PIPE, text=True) as producer:
        try:
            assert producer.stdout.readline() == "half way\n"
        finally:
            producer.kill()
    error = stage.app.AsyncResult(body).get(timeout=40, propagate=False)
    assert isinstance(error, ChordError)
    assert "died before all of its header was sent" in str(error)
    wait_until(lambda: stage.waiting() == 0, lambda: f"{stage.waiting()} messages wait")
    assert worker.stop() == 0
    assert stage.ledger.counts("ran")[body] == 0
    if name == "database":
        stage.close()
