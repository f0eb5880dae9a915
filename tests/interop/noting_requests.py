"""Tasks whose request classes override all that a worker does with requests, for a worker of either Celery.

What is called goes to the ledger, one line each. `noting.*` call the methods that they override, `silent.*` do not.
"""

import os
import time

from project import app, note, wait_for_gate

from celery.exceptions import Ignore, Reject
from celery.worker.request import Request


class Noting(Request):
    """Notes what it is asked for, and has it done."""

    #: Whether the methods that it overrides are called.
    obedient = True

    def put(self, text):
        note(text, self.args[0], self.hostname)

    def acknowledge(self):
        self.put("acknowledge")
        if self.obedient:
            super().acknowledge()

    def reject(self, requeue=False):
        self.put(f"reject:{requeue}")
        if self.obedient:
            super().reject(requeue=requeue)

    def terminate(self, pool, signal=None):
        self.put(f"terminate:{signal}")
        if self.obedient:
            super().terminate(pool, signal)

    def maybe_expire(self):
        expired = super().maybe_expire()
        if expired:  # we ask once, Celery 5.7 twice
            self.put("maybe_expire")
        return expired

    def send_event(self, type, **fields):
        told = {name: fields[name] for name in ("terminated", "signum", "expired", "requeue") if name in fields}
        self.put(":".join([type, *sorted(fields), *map(str, told.values())]))
        super().send_event(type, **fields)

    def on_accepted(self, pid, time_accepted):
        self.put("on_accepted{")
        super().on_accepted(pid, time_accepted)
        self.put("}")

    def on_failure(self, exc_info, send_failed_event=True, return_ok=False):
        self.put("on_failure{")
        super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)
        self.put("}")


class Silent(Noting):
    """Has nothing done."""

    obedient = False


def work(self, key, what):
    """End as is asked for."""
    note("ran", key, self.request.hostname)
    if what == "fail":
        raise KeyError(key)
    if what == "reject":
        raise Reject("unwanted")
    if what == "requeue" and not os.path.exists(gate := f"{os.environ['INTEROP_FOLDER']}/again-{key}"):
        open(gate, "w").close()
        raise Reject("later", requeue=True)
    if what == "ignore":
        raise Ignore
    if what == "retry":
        raise self.retry(countdown=0, max_retries=1)
    if what == "die":
        time.sleep(0.2)
        os._exit(1)
    if what == "wait":
        wait_for_gate(key)
    return key


for request in (Noting, Silent):
    prefix = request.__name__.lower()
    app.task(name=f"{prefix}.early", bind=True, Request=request)(work)
    app.task(name=f"{prefix}.late", bind=True, Request=request, acks_late=True)(work)
    app.task(name=f"{prefix}.strict", bind=True, Request=request, acks_late=True, acks_on_failure=False)(work)
