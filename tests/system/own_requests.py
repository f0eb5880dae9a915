"""Tasks whose requests take themselves to the pool, or settle themselves; the ledger says what they do."""

import asyncio
import threading
import time

from project import app, note, wait_for_gate

from celery.worker.request import Request


class Gated(Request):
    """Notes that it is there, and does what the second argument says."""

    def execute_using_pool(self, pool, **kwargs):
        key, what, *_ = self.args
        note("called", key)
        getattr(self, what)(key, lambda: super(Gated, self).execute_using_pool(pool, **kwargs))
        note("returned", key)

    def at_once(self, key, run):
        run()

    def when_open(self, key, run):
        wait_for_gate(key)
        run()

    def elsewhere(self, key, run):
        threading.Thread(target=self.when_open, args=(key, run), daemon=True).start()

    def never(self, key, run):
        pass

    def refuse(self, key, run):
        self.reject()

    def forget(self, key, run):
        self.acknowledge()

    def fail(self, key, run):
        raise LookupError("a mistake")

    def here(self, key, run):
        self.execute()


class Settling(Request):
    """Notes what it is asked for, and acknowledges once its gate is open."""

    def acknowledge(self):
        note("acknowledge", self.args[0])
        threading.Thread(target=self.when_open, args=(self.args[0],), daemon=True).start()

    def when_open(self, key):
        wait_for_gate(key)
        super().acknowledge()
        note("acknowledged", key)

    def terminate(self, pool, signal=None):
        note("terminate", self.args[0])
        super().terminate(pool, signal)

    def cancel(self, pool, signal=None, emit_retry=True):
        note("cancel", self.args[0])
        super().cancel(pool, signal, emit_retry)


class Broken(Request):
    """Can do nothing."""

    def acknowledge(self, *_args, **_fields):
        raise LookupError("a mistake")

    terminate = cancel = reject = send_event = acknowledge


def gated(key, what):
    """Its request says when it runs."""
    note("ran", key)
    return key


async def agated(key, what):
    return gated(key, what)


def settle(key, seconds=0):
    """Its request says when it is acknowledged."""
    note("ran", key)
    time.sleep(seconds)
    return key


async def asettle(key, seconds=0):
    note("ran", key)
    await asyncio.sleep(seconds)
    return key


for request, bodies in ((Gated, (gated, agated)), (Settling, (settle, asettle)), (Broken, (settle, asettle))):
    for kind, body in zip(("", "async-"), bodies, strict=True):
        name = f"own.{request.__name__.lower()}.{kind}"
        app.task(name=f"{name}early", Request=request)(body)
        app.task(name=f"{name}late", Request=request, acks_late=True)(body)
