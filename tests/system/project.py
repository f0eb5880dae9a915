"""The application whose workers are under test. What it is made of comes from the environment (see `harness`).

Tasks write to a ledger, a file outside of broker and backend: one line for each event, "event key pid unix-time".
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time

from celery import Celery, Task, group, signals
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded

app = Celery("project", broker=os.environ["SYSTEM_BROKER"], backend=os.environ["SYSTEM_BACKEND"])
app.conf.update(json.loads(os.environ["SYSTEM_CONF"]))


def note(event: str, key: object) -> None:
    """Put on record; one short write to a file opened for appending is whole or absent."""
    ledger = os.open(os.environ["SYSTEM_LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(ledger, f"{event} {key} {os.getpid()} {time.time()}\n".encode())
    os.close(ledger)


def gate(name: str) -> str:
    """The file whose coming opens a gate."""
    return os.path.join(os.path.dirname(os.environ["SYSTEM_LEDGER"]), f"gate-{name}")


def wait_for_gate(name: str) -> None:
    """Block until a test opens the gate."""
    while not os.path.exists(gate(name)):
        time.sleep(0.002)


@app.task
def add(x, y):
    return x + y


@app.task
def echo(value):
    return value


@app.task
def produce(key, size):
    note("ran", key)
    return "x" * size


@app.task
def record(key, *ignored):
    note("ran", key)
    return key


@app.task(acks_late=True, reject_on_worker_lost=True)
def record_late(key, *ignored):
    note("ran", key)


@app.task
def nap(key, seconds):
    note("start", key)
    time.sleep(seconds)
    note("end", key)
    return key


@app.task(acks_late=True, reject_on_worker_lost=True)
def nap_late(key, seconds):
    note("start", key)
    time.sleep(seconds)
    note("end", key)
    return key


@app.task
def record_or_block(key, block=False):
    if block:
        note("start", key)
        wait_for_gate(key)
    note("ran", key)


@app.task
def block(key):
    note("start", key)
    wait_for_gate(key)
    note("end", key)
    return os.getpid()


@app.task(acks_late=True, reject_on_worker_lost=True)
def block_late(key):
    note("start", key)
    wait_for_gate(key)
    note("end", key)
    return key


@app.task(track_started=True)
def block_tracked(key):
    note("start", key)
    wait_for_gate(key)
    return key


@app.task(bind=True, track_started=True)
def progress(self, key):
    self.update_state(state="PROGRESS", meta={"done": 1})
    note("told", key)
    wait_for_gate(key)
    return "done"


@app.task(bind=True)
def describe(self, *args, **kwargs):
    request = self.request
    names = (
        "id", "task", "args", "kwargs", "retries", "eta", "expires", "root_id", "parent_id", "hostname", "headers",
        "delivery_info", "called_directly", "is_eager", "correlation_id", "reply_to", "timelimit", "shadow", "origin",
        "argsrepr", "kwargsrepr", "lang", "group", "ignore_result", "stamps", "properties", "time_limit",
        "soft_time_limit",
    )  # fmt: skip
    return {name: getattr(request, name) for name in names}


class Odd(Exception):
    """An exception whose arguments say nothing, and which holds what cannot be pickled."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")
        self.lock = open(os.devnull)  # noqa: SIM115 - the point is that it cannot be pickled


@app.task
def fail(text):
    raise ValueError(text)


@app.task(throws=(KeyError,))
def fail_expectedly():
    raise KeyError("expected")


@app.task
def fail_oddly():
    raise Odd("this", "that")


@app.task
def unserializable():
    return object()


@app.task
def leave(code):
    sys.exit(code)


@app.task
def talk():
    print("printed by a task")


@app.task
def ignore():
    raise Ignore


@app.task(bind=True, acks_late=True)
def reject(self, key, requeue):
    again = os.path.exists(gate(key))
    open(gate(key), "w").close()
    note("ran", key)
    if requeue and again:
        return "second time"
    raise Reject("as asked", requeue=requeue)


@app.task(bind=True, max_retries=2)
def retry(self, key, countdown):
    note("ran", key)
    if self.request.retries < 2:
        raise self.retry(countdown=countdown)
    return self.request.retries


@app.task(bind=True, max_retries=1, default_retry_delay=0)
def retry_too_often(self):
    try:
        raise KeyError("each time")
    except KeyError as exc:
        raise self.retry(exc=exc) from exc


@app.task(bind=True, max_retries=0)
def retry_never(self):
    raise self.retry(countdown=0)


@app.task(bind=True, autoretry_for=(KeyError,), retry_backoff=1, retry_jitter=False, max_retries=2)
def autoretry(self, key):
    note("ran", key)
    if not self.request.retries:
        raise KeyError(key)
    return self.request.retries


@app.task(bind=True)
def described_by_its_retry(self):
    if not self.request.retries:
        raise self.retry(countdown=0)
    request = self.request
    return [request.headers, request.timelimit, request.delivery_info["priority"], request.retries]


@app.task(bind=True)
def descent(self, value, key):
    note("descent", f"{key}:{self.request.parent_id}:{self.request.root_id}")


@app.task
def callback(value, key):
    note("called", f"{key}:{value}")


@app.task
def old_errback(task_id):
    note("failed", task_id)


@app.task
def new_errback(request, exc, traceback):
    note("failed", f"{request.id}:{type(exc).__name__}:{'ValueError' in traceback}")


class Hooked(Task):
    """Puts its hooks on record."""

    def before_start(self, task_id, args, kwargs):
        note("before_start", task_id)

    def on_success(self, retval, task_id, args, kwargs):
        note("on_success", task_id)

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        note("on_failure", task_id)

    def on_retry(self, exc, task_id, args, kwargs, einfo):
        note("on_retry", task_id)

    def after_return(self, status, retval, task_id, args, kwargs, einfo):
        note("after_return", task_id)


@app.task(base=Hooked, bind=True, default_retry_delay=0)
def hooked(self, how):
    note("run", self.request.id)
    if how == "fail":
        raise ValueError(how)
    if how == "retry" and not self.request.retries:
        raise self.retry()
    if how == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "hang":
        time.sleep(60)


for each in (signals.task_prerun, signals.task_postrun, signals.task_success, signals.task_failure, signals.task_retry):

    def told(sender, signal, task_id=None, request=None, **_):
        if sender.name == "project.hooked":
            note(signal.name, task_id or (request or sender.request).id)

    each.connect(told, weak=False)


# -- tasks that end their process


@app.task
def die(key):
    note("start", key)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(acks_late=True)
def die_late(key):
    note("start", key)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(acks_late=True, reject_on_worker_lost=True)
def die_again(key):
    note("start", key)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(acks_late=True)
def die_together(key):
    """All processes of the worker are killed, as when their container has used up its memory."""
    note("start", key)
    os.killpg(os.getsid(0), signal.SIGKILL)


@app.task(acks_late=True, reject_on_worker_lost=True)
def die_once(key):
    note("start", key)
    if not os.path.exists(gate(key)):
        open(gate(key), "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


@app.task(bind=True, retry_on_worker_lost=True, max_retries=2, default_retry_delay=0)
def die_and_retry(self, key, times):
    note("start", key)
    if self.request.retries < times:
        os.kill(os.getpid(), signal.SIGKILL)
    return self.request.retries


# -- limits


@app.task(soft_time_limit=0.2)
def overstep_softly(seconds):
    try:
        time.sleep(seconds)
    except SoftTimeLimitExceeded:
        return "noticed"
    return "not noticed"


@app.task(time_limit=0.3)
def overstep(key):
    note("start", key)
    time.sleep(60)


class DiesOfItsHook(Task):
    def on_failure(self, exc, task_id, args, kwargs, einfo):
        os.kill(os.getpid(), signal.SIGKILL)


@app.task(base=DiesOfItsHook, time_limit=0.3)
def overstep_and_die():
    time.sleep(60)


@app.task(time_limit=0.3, acks_late=True, acks_on_timeout=False)
def overstep_and_return(key):
    note("start", key)
    if not os.path.exists(gate(key)):
        open(gate(key), "w").close()
        time.sleep(60)
    return "second time"


@app.task
def pid():
    return os.getpid()


hoard = []


@app.task
def grow(megabytes):
    hoard.append(bytearray(os.urandom(1)) * (megabytes << 20))
    return os.getpid()


# -- async tasks


@app.task
async def anap(seconds):
    await asyncio.sleep(seconds)
    return seconds


async def opened(name):
    """Wait until a test opens the gate."""
    while not os.path.exists(gate(name)):  # noqa: ASYNC110, ASYNC240 - a file is how another process can open it
        await asyncio.sleep(0.002)


@app.task
async def ablock(key):
    note("start", key)
    await opened(key)
    note("end", key)
    return key


@app.task(acks_late=True, reject_on_worker_lost=True)
async def ablock_late(key):
    note("start", key)
    await opened(key)
    note("end", key)
    return key


@app.task(bind=True)
async def who_am_i(self):
    before = self.request.id
    await asyncio.sleep(0.01)
    return [before, self.request.id, app.current_task.request.id]


@app.task(bind=True, max_retries=3)
async def aretry(self):
    await asyncio.sleep(0)
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return self.request.retries


@app.task
async def afail():
    await asyncio.sleep(0)
    raise ValueError("async")


@app.task(soft_time_limit=0.2)
async def aoverstep_softly():
    try:
        await asyncio.sleep(60)
    except SoftTimeLimitExceeded:
        return "noticed"


@app.task(time_limit=0.3)
async def aoverstep(key):
    try:
        await asyncio.sleep(60)
    finally:
        note("cancelled", key)


@app.task(time_limit=0.3)
async def astubborn(key):
    note("start", key)
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            note("unmoved", key)


@app.task
async def aleave():
    await asyncio.sleep(0)
    sys.exit(3)


@app.task
async def acancel():
    asyncio.current_task().cancel()
    await asyncio.sleep(1)


# -- for workflows (see `workflows`)


class Boom(Exception):
    pass


@app.task
def tag(*given):
    """The label, and what came before it."""
    return [given[-1], *given[:-1]]


@app.task
def const(label):
    return [label]


@app.task
def boom(label):
    raise Boom(label)


@app.task(acks_late=True, reject_on_worker_lost=True)
def risky(key, seconds):
    """One of a hundred fails, always the same ones."""
    time.sleep(seconds)
    if int(key.rpartition("-")[2]) % 100 == 99:
        raise Boom(key)
    return key


@app.task(bind=True, acks_late=True, reject_on_worker_lost=True)
def body_sent(self, values, key):
    again = self.request.delivery_info["redelivered"]
    note("again" if again else "body", f"{key}:{len(values)}")
    return len(values)


@app.task(bind=True, acks_late=True, reject_on_worker_lost=True)
def errback_sent(self, task_id, key):
    again = self.request.delivery_info["redelivered"]
    note("errback-again" if again else "errback", f"{key}:{task_id}")


@app.task(ignore_result=True)
def quiet(*given):
    return [given[-1], *given[:-1]]


@app.task
async def atag(*given):
    await asyncio.sleep(0)
    return [given[-1], *given[:-1]]


@app.task(bind=True, max_retries=2, default_retry_delay=0)
def again(self, *given):
    if self.request.retries < 2:
        raise self.retry()
    return [given[-1], *given[:-1]]


@app.task(bind=True)
def swap(self, *given):
    """Replaced by what is named in the label, of which the value is the same as that of `tag`."""
    *values, label = given
    plain, several = tag.si(*values, label), group([echo.si(label), *map(echo.si, values)])
    if label.endswith("chain"):
        return self.replace(plain | echo.s())
    if label.endswith("group"):
        return self.replace(echo.si(label) | several if values else several)
    if label.endswith("chord"):
        return self.replace(several | echo.s())
    if label.endswith("boom"):
        return self.replace(boom.si(label))
    return self.replace(plain)


@app.task
def called(key):
    note("called", key)


@app.task
def failed(request, exc, traceback, key):
    note("called", key)


@app.task(bind=True)
def failed_old(self, task_id, key):
    note("called", key)


@app.task
def total(numbers):
    return sum(numbers)
