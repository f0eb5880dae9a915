"""One application for both Celerys: whichever interpreter imports this module brings its own `celery`.

Broker, store and names come from the environment (see `fleet`). Tasks write to a ledger, a file outside of the broker:
one line for each event, "event key node". What only a client calls stands at the end.
"""

from __future__ import annotations

import datetime
import decimal
import json
import os
import threading
import time
import uuid

from kombu import Queue

import celery  # noqa: F401  for the clients' expressions
from celery import Celery, signals
from celery.exceptions import Ignore, Reject

FOLDER = os.environ["INTEROP_FOLDER"]
NAME = os.environ["INTEROP_NAME"]
#: What must come at once may take this long on a busy machine, in seconds.
SOON = 25

app = Celery("project", broker=os.environ["INTEROP_BROKER"], backend=os.environ["INTEROP_BACKEND"])
app.conf.update(
    task_default_queue=NAME,
    task_queues=[
        Queue(NAME, routing_key=NAME),
        *[Queue(f"{NAME}-{side}", routing_key=f"{NAME}-{side}") for side in ("ours", "theirs")],
        *[
            Queue(f"{NAME}-urgent-{side}", routing_key=f"{NAME}-urgent-{side}", max_priority=10)
            for side in ("ours", "theirs")
        ],
    ],
    control_exchange=NAME,
    event_exchange=f"{NAME}-events",
    accept_content=["json", "pickle", "yaml", "msgpack"],
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    broker_transport_options=json.loads(os.environ.get("INTEROP_TRANSPORT_OPTIONS", "{}")),
    redis_socket_connect_timeout=5,
)


def note(event, key, node):
    """Put on record; one short write to a file opened for appending is whole or absent."""
    ledger = os.open(os.path.join(FOLDER, "ledger"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(ledger, f"{event} {key} {node.partition('@')[0]}\n".encode())
    os.close(ledger)


def noted(event, key):
    """Nodes that have put this on record, in order."""
    with open(os.path.join(FOLDER, "ledger"), encoding="utf-8") as ledger:
        rows = [line.split() for line in ledger]
    return [node for *entry, node in rows if entry == [event, key]]


def gate(key):
    """The file whose coming opens a gate."""
    return os.path.join(FOLDER, f"gate-{key}")


def wait_for_gate(key):
    """Block until a test opens the gate."""
    deadline = time.monotonic() + 2 * SOON
    while not os.path.exists(gate(key)):
        if time.monotonic() > deadline:
            raise TimeoutError(f"nobody opened {gate(key)}")
        time.sleep(0.005)


@signals.worker_ready.connect
def tell_ready(sender, **_):
    note("ready", NAME, sender.hostname)


@app.task
def add(x, y):
    return x + y


@app.task
def echo(*args, **kwargs):
    return [list(args), kwargs]


@app.task
def kinds(*args):
    return [type(arg).__name__ for arg in args]


class Trouble(Exception):
    """An exception that both sides can import."""


@app.task
def fail(text):
    raise Trouble(text, 7)


@app.task(bind=True)
def describe(self):
    request = self.request
    names = (
        "id", "task", "args", "kwargs", "retries", "root_id", "parent_id", "headers", "correlation_id", "reply_to",
        "timelimit", "shadow", "argsrepr", "kwargsrepr", "lang", "group", "ignore_result", "eta", "expires",
    )  # fmt: skip
    return {name: getattr(request, name, None) for name in names} | {"priority": request.delivery_info["priority"]}


@app.task(bind=True, max_retries=3)
def retry_twice(self, key):
    note("ran", key, self.request.hostname)
    if self.request.retries < 2:
        raise self.retry(countdown=0.05)
    return self.request.retries


@app.task(bind=True, max_retries=1)
def retry_in_vain(self):
    raise self.retry(exc=Trouble("in vain"), countdown=0)


@app.task(bind=True, max_retries=500)
def retry_until_both_ran(self, key):
    note("ran", key, self.request.hostname)
    if len(set(noted("ran", key))) < 2:
        raise self.retry(countdown=0)
    return self.request.retries


@app.task(bind=True)
def record(self, key, *ignored):
    note("ran", key, self.request.hostname)
    return key


@app.task(bind=True, ignore_result=True)
def record_only(self, key):
    note("ran", key, self.request.hostname)


@app.task(bind=True)
def early_by(self):
    """Seconds until the eta; negative when it has passed."""
    return datetime.datetime.fromisoformat(self.request.eta).timestamp() - time.time()


@app.task(bind=True, track_started=True)
def block(self, key):
    note("start", key, self.request.hostname)
    wait_for_gate(key)
    return self.request.hostname


@app.task(bind=True, acks_late=True)
def block_late(self, key):
    note("start", key, self.request.hostname)
    wait_for_gate(key)
    note("end", key, self.request.hostname)


@app.task(bind=True)
def progress(self, key):
    self.update_state(state="PROGRESS", meta={"done": 1})
    wait_for_gate(key)
    return "done"


@app.task
def ignore():
    raise Ignore


@app.task(bind=True, acks_late=True)
def reject_once(self, key):
    note("ran", key, self.request.hostname)
    if len(noted("ran", key)) == 1:
        raise Reject("as asked", requeue=True)


@app.task(bind=True)
def callback(self, value, key):
    note("called", f"{key}:{value}", self.request.hostname)


@app.task(bind=True)
def old_errback(self, task_id):
    note("old-errback", task_id, self.request.hostname)


@app.task
def new_errback(request, exc, traceback):
    note("new-errback", f"{request.id}:{type(exc).__name__}:{'Trouble' in traceback}", "in-place")


@app.task
def parents_call(x):
    """Sends a task of its own."""
    return add.apply_async((x, 1), queue=NAME).id


# -- for workflows


@app.task
def tag(*given):
    """The label, and what came before it."""
    return [given[-1], *given[:-1]]


@app.task(bind=True, max_retries=3)
def tag_third_time(self, *given):
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return [given[-1], *given[:-1]]


@app.task(bind=True)
def swap(self, by, side, *given):
    """Replaced by what comes to the same value as `tag`."""
    *values, label = given
    first, rest = on(side, echo.si(label)), [on(side, echo.si(value)) for value in values]
    raise self.replace({
        "task": on(side, tag.si(*values, label)),
        "chain": on(side, echo.si(label)) | on(side, tag.si(*values, label)),
        "chord": celery.chord([first, *rest], on(side, firsts.s())),
    }[by])


@app.task
def firsts(values):
    """Of what `echo` returned."""
    return [args[0] for args, _ in values]


@app.task(bind=True)
def stamps_seen(self, *_):
    return dict(self.request.stamps or {})


@app.task(bind=True)
def told(self, *given):
    note("told", given[-1], self.request.hostname)


# -- for clients


def on(side, sig):
    """To be run by the worker of a side."""
    return sig.set(queue=f"{NAME}-{side}")


def settled(result):
    """Its value, or how it failed."""
    value = result.get(timeout=SOON, propagate=False)
    return [type(value).__name__, str(value)] if isinstance(value, Exception) else value


def open_gate_later(key):
    """When who calls this has most likely begun to wait."""
    threading.Timer(0.3, open, (gate(key), "w")).start()


def raised(result, **options):
    """What `get` raises, by name."""
    try:
        return repr(result.get(timeout=SOON, **options))
    except Exception as error:  # noqa: BLE001 - whatever it is
        return type(error).__name__


#: Old producers: protocol 1 on the wire.
old = Celery("old", broker=app.conf.broker_url, backend=app.conf.result_backend, set_as_current=False)
old.conf.update(
    task_protocol=1, task_default_queue=NAME, task_queues=app.conf.task_queues, accept_content=app.conf.accept_content
)


def rich():
    """One of each type that JSON is extended by."""
    aware = datetime.datetime(2024, 2, 29, 1, 2, 3, 4, tzinfo=datetime.UTC)
    return [
        aware, aware.replace(tzinfo=None), aware.date(), aware.time(), decimal.Decimal("1.10"),
        uuid.UUID("12345678123456781234567812345678"), b"text", b"\xff\x00",
    ]  # fmt: skip


def value(result):
    """What a task returned."""
    return result.get(timeout=SOON)


def send(task, *args, side, **options):
    """Send to the worker of one side."""
    return task.apply_async(args, queue=f"{NAME}-{side}", **options)


def call(task, *args, side, **options):
    """Send to the worker of one side; what the task returned."""
    return value(send(task, *args, side=side, **options))


def failure(result):
    """How it failed: type, arguments, whether the traceback names the line, state."""
    error = result.get(timeout=SOON, propagate=False)
    return [type(error).__name__, [str(arg) for arg in error.args], "in fail" in (result.traceback or ""), result.state]


def until(condition):
    """The first true value of `condition()`."""
    deadline = time.monotonic() + SOON
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.01)
    return found


def state_after(result, *states):
    """The first state that is none of these."""
    return until(lambda: (state := result.state) not in states and state)



def states_told(result, key):
    """The states that are told on the way to the result; the first that is not STARTED opens a gate."""
    told = []

    def on_message(record):
        if record["status"] != "STARTED":
            told.append(record["status"])
            open(gate(key), "w", encoding="utf-8").close()

    result.get(timeout=SOON, on_message=on_message)
    return told
