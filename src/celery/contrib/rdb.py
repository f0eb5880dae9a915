"""A debugger in a process without a terminal: pdb over a socket (API-109).

    from celery.contrib import rdb

    @app.task
    def add(x, y):
        rdb.set_trace()  # waits here until somebody runs the telnet command that it prints
        return x + y

One session at a time in each process. ``continue`` and ``quit`` both end it, and the code goes on.

``CELERY_RDB_HOST`` (127.0.0.1) and ``CELERY_RDB_PORT`` (6899) in the environment say where it listens: on that port, or
the next free one. Whoever can connect can run code: think before you let others than this machine.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from pdb import Pdb
from typing import Any, Self, TextIO

__all__ = ("CELERY_RDB_HOST", "CELERY_RDB_PORT", "DEFAULT_PORT", "Rdb", "debugger", "set_trace")

DEFAULT_PORT = 6899
CELERY_RDB_HOST = os.environ.get("CELERY_RDB_HOST") or "127.0.0.1"
CELERY_RDB_PORT = int(os.environ.get("CELERY_RDB_PORT") or DEFAULT_PORT)

#: The debugger of this process, while it has a session.
_current: Rdb | None = None


class Rdb(Pdb):
    """A debugger that listens. Waits for somebody to connect when it is made.

    Args:
        host: to listen on.
        port: the first one to try, before `port_skew`.
        port_search_limit: how many ports are tried.
        port_skew: added to the port.
        out: where it says how to connect.

    Raises:
        RuntimeError: all ports are taken.
    """

    me = "Remote Debugger"

    def __init__(
        self,
        host: str = CELERY_RDB_HOST,
        port: int = CELERY_RDB_PORT,
        port_search_limit: int = 100,
        port_skew: int = 0,
        out: TextIO | None = None,
    ) -> None:
        self.active = True
        self.out = out or sys.stdout
        listening, self.port = self.get_avail_port(host, port, port_search_limit, port_skew)
        self.host = host
        self.ident = f"{self.me}:{self.port}"
        with listening:
            listening.listen(1)
            self.say(f"{self.ident}: Ready to connect: telnet {host} {self.port}\n\nType `exit` to end the session.")
            self._client, address = listening.accept()
        self.say(f"{self.ident}: Now in session with {address[0]}:{address[1]}.")
        self._handle = self._client.makefile("rw")
        super().__init__(completekey="tab", stdin=self._handle, stdout=self._handle)

    def get_avail_port(self, host: str, port: int, search_limit: int = 100, skew: int = 0) -> tuple[socket.socket, int]:
        """A bound socket, and its port."""
        first = port + skew
        for candidate in range(first, first + search_limit):
            made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                made.bind((host, candidate))
            except OSError as exc:
                made.close()
                if exc.errno not in (errno.EADDRINUSE, errno.EINVAL):
                    raise
            else:
                return made, candidate
        raise RuntimeError(
            f"{self.me}: ports {first} to {first + search_limit - 1} of {host} are taken; set CELERY_RDB_PORT."
        )

    def say(self, m: str) -> None:
        """Tell people at the process."""
        print(m, file=self.out, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._close_session()

    def _close_session(self) -> None:
        global _current  # noqa: PLW0603 - there is one for each process
        if _current is self:
            _current = None
        if self.active:
            self.active = False
            self.clear_all_breaks()
            for end in (self._handle, self._client):
                try:
                    end.close()
                except OSError:
                    continue
            self.say(f"{self.ident}: Session ended.")

    def do_continue(self, arg: str) -> bool:
        """End the session; the code goes on."""
        del arg
        self._close_session()
        self.set_continue()
        return True

    do_c = do_cont = do_continue

    def do_quit(self, arg: str) -> bool:
        """End the session; the code goes on."""
        return self.do_continue(arg)

    do_q = do_exit = do_EOF = do_quit  # noqa: N815 - pdb's name

    def set_quit(self) -> None:
        """Stop tracing. What pdb would raise here ends the program that is debugged."""
        sys.settrace(None)


def debugger() -> Rdb:
    """The debugger of this process; one that waits for somebody to connect where there is none."""
    global _current  # noqa: PLW0603 - there is one for each process
    if _current is None:
        _current = Rdb()
    return _current


def set_trace(frame: Any = None) -> None:
    """Stop in the calling function, or in another frame."""
    debugger().set_trace(frame or sys._getframe().f_back)
