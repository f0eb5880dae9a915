"""Tasks whose requests take themselves to the pool; the ledger says what they do."""

import threading

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


@app.task(name="own.early", Request=Gated)
def early(key, what):
    """Acknowledged when it has started."""
    note("ran", key)
    return key


@app.task(name="own.late", Request=Gated, acks_late=True)
def late(key, what):
    """Acknowledged when it has ended."""
    note("ran", key)
    return key
