"""A result backend as third parties write them: a few blocking verbs, and nothing else."""

import contextlib
import os
import time
from pathlib import Path

from celery.backends.base import KeyValueStoreBackend


class Shelf(KeyValueStoreBackend):
    """A file for each result, in the folder that ``SHELF`` names."""

    def _file(self, key):
        return Path(os.environ["SHELF"], key.decode())

    def get(self, key):
        with contextlib.suppress(FileNotFoundError):
            return self._file(key).read_text()
        return None

    def set(self, key, value):
        fresh = self._file(key + f".{os.getpid()}".encode())
        fresh.write_text(value)
        fresh.rename(self._file(key))

    def delete(self, key):
        self._file(key).unlink(missing_ok=True)

    def exception_safe_to_retry(self, exc):
        # The whole folder is away, as a file system that is not mounted is.
        return isinstance(exc, FileNotFoundError)


class LateShelf(Shelf):
    """It takes its time to write that a task is tried again."""

    def set(self, key, value):
        if '"RETRY"' in value:
            time.sleep(0.5)
        super().set(key, value)


class CountingShelf(Shelf):
    """It can add one, so it counts the members of chords."""

    implements_incr = True

    def incr(self, key):
        # A line for each; short writes to a file opened for appending are whole.
        with self._file(key).open("a") as counter:
            counter.write("+")
            counter.flush()
            return counter.tell()

    def expire(self, key, value):
        pass
