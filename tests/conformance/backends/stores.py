"""What a result backend needs to be run through the conformance suite, and words for its tests.

The list is explicit: a backend that is in it and cannot be imported is an error.
"""

from __future__ import annotations

import gc
import warnings

from celery import Celery

#: Name -> servers. rpc is not here: its results are messages, read once and by one reader (API-067).
STORES = {
    "memory": (),
    "sqlite": (),
    "redis": ("redis",),
    "database-sqlite": (),
    "database-postgres": ("postgres",),
    "database-mariadb": ("mariadb",),
}

#: No test waits longer than this for what must come at once, in seconds.
SOON = 10.0


class Bench:
    """One backend on a store of the test's own."""

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self.url = url
        self.apps = []
        self.backend = self.make()

    #: Records vanish by themselves, at once, when `result_expires` is over.
    @property
    def expires_by_itself(self) -> bool:
        return self.backend.supports_autoexpire

    @property
    def between_processes(self) -> bool:
        return self.name != "memory"

    def make(self, **settings):
        """Another instance on the same store, as another process would have."""
        app = Celery("conformance", broker="memory://", backend=self.url, set_as_current=False)
        app.conf.update(settings)
        self.apps.append(app)
        return app.backend

    def close(self):
        """Give up connections, also those that a backend keeps for each thread and ends with itself."""
        for app in self.apps:
            app.close()
        self.backend = None
        self.apps.clear()
        if self.name == "redis":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                gc.collect()
