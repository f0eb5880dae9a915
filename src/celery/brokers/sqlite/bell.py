"""Wake-ups between processes: an empty file beside the store, written to after a commit and watched by who waits.

A bell rings *after* the commit is visible, so a listener that looks when it hears one misses nothing; watching
the store's own log would wake it too early, and for every acknowledgement too. A bell that is not heard (its ringer
was killed between commit and ring) costs time, not messages: listeners look by themselves every `LOOK_INTERVAL`.

On Linux a listener waits on an inotify descriptor. Elsewhere, or when the user has no inotify instance left, there is
no descriptor, and the listener looks every `POLL_INTERVAL` instead: some tenths of a percent of a core.
"""

from __future__ import annotations

import contextlib
import os

#: Suffixes of the two bells: somebody sent a message, somebody stored a result.
MESSAGES = "-messages"
RESULTS = "-results"
#: Seconds between two looks without having heard the bell.
LOOK_INTERVAL = 1.0
#: The same where bells cannot be heard.
POLL_INTERVAL = 0.01


class Bell:
    """The ringing side. Any thread, any process, also after a fork.

    Args:
        path: of the store.
        kind: MESSAGES or RESULTS.
    """

    def __init__(self, path: str, kind: str) -> None:
        self.path = path + kind
        self._file: int | None = None

    def ring(self) -> None:
        """Wake whoever listens. A bell that cannot be rung is not an error: see above."""
        with contextlib.suppress(OSError):
            if self._file is None:
                self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
            os.pwrite(self._file, b"\0", 0)

    def close(self) -> None:
        """Close the file. Idempotent; a later ring opens it again."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)
