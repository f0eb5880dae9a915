"""The nursery: a process that forks children, so that the worker's main process never has to.

It is itself forked from the main process after the application is imported and before any thread or event loop
exists. So its forks are safe whatever runs in the main process later, they share the imported pages, and a dead child
is back in milliseconds. It does nothing else: it waits for requests and for the death of its children.

Over a stream socket, one line a message. To the nursery: "fork <index>" with two descriptors attached, the child's
ends of its lanes. From it: "forked <index> <pid>", "exited <index> <pid> <status>" (as of waitpid).

A nursery that dies takes its children along, and is replaced by one that imports the application anew
(`celery.concurrency.spawn`).

Everybody dies with their parent (Linux): the nursery with the main process, the children with the nursery.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple, NoReturn

from celery.utils.log import get_logger

logger = get_logger(__name__)

_PR_SET_PDEATHSIG = 1


class Forked(NamedTuple):
    """A child lives."""

    row: int
    pid: int


class Exited(NamedTuple):
    """A child is dead."""

    row: int
    pid: int
    #: As of waitpid.
    status: int

    def describe(self) -> str:
        """For people: "signal 9 (SIGKILL)", "exit code 1"."""
        if os.WIFSIGNALED(self.status):
            number = os.WTERMSIG(self.status)
            with contextlib.suppress(ValueError):
                return f"signal {number} ({signal.Signals(number).name})"
            return f"signal {number}"
        return f"exit code {os.WEXITSTATUS(self.status)}"


#: Called in a new child with its index and its ends of the sync and the async lane; its return ends the child.
BeChild = Callable[[int, socket.socket, socket.socket], None]


class Nursery:
    """The main process's end."""

    def __init__(self, pid: int, connection: socket.socket) -> None:
        """Take over a nursery that exists.

        Args:
            pid: its process.
            connection: leads there.
        """
        self.pid = pid
        self.connection = connection
        self._buffer = b""

    @classmethod
    def split_off(cls, be_child: BeChild) -> Nursery:
        """Fork a nursery from this process, which must not have threads yet."""
        here = (threading.main_thread(), threading.current_thread())
        others = [thread.name for thread in threading.enumerate() if thread not in here]
        if others:
            logger.warning(
                "Threads were running when the worker was about to fork: %s. They do not exist in pool processes, and "
                "locks that they held stay locked there. Start them in worker_process_init, or use "
                "--pool-start-method=spawn.",
                ", ".join(others),
            )
        ours, theirs = socket.socketpair()
        sys.stdout.flush()
        sys.stderr.flush()
        # What is here now stays for good, and is shared as long as nobody writes to it, as the collector would, or who
        # is given the room that importing has left between what stays.
        gc.collect()
        gc.freeze()
        _return_free_memory()
        pid = os.fork()
        if pid == 0:
            ours.close()

            def begin() -> None:
                die_with_parent()
                serve(theirs, be_child)

            run_and_exit(begin)
        theirs.close()
        return cls(pid, ours)

    def fork(self, index: int, sync_socket: socket.socket, async_socket: socket.socket) -> None:
        """Ask for a child. The answer comes as an event."""
        socket.send_fds(self.connection, [b"fork %d\n" % index], [sync_socket.fileno(), async_socket.fileno()])

    def events(self) -> list[Forked | Exited] | None:
        """What happened; call when the connection is readable. None: the nursery is dead."""
        try:
            data = self.connection.recv(4096)
        except OSError:
            return None
        if not data:
            return None
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        events: list[Forked | Exited] = []
        for line in lines:
            kind, *numbers = line.split()
            values = [int(number) for number in numbers]
            events.append(Forked(*values) if kind == b"forked" else Exited(*values))
        return events

    def close(self) -> None:
        """Let the nursery end; its children end with it."""
        self.connection.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def run_and_exit(function: Callable[[], None]) -> NoReturn:
    """Leave a forked process without the parent's clean-up."""
    status = 0
    try:
        function()
    except SystemExit as exc:
        status = exc.code if isinstance(exc.code, int) else 1
    except BaseException:  # noqa: BLE001 - the last stop of a process
        traceback.print_exc()
        status = 1
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def die_with_parent() -> None:
    """SIGKILL for this process when its parent dies, where the system can (Linux)."""
    if sys.platform != "linux":
        return
    _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _return_free_memory() -> None:
    """Let the system have what the allocator keeps for later, where it can be told to (glibc)."""
    if sys.platform == "linux" and (trim := getattr(_libc(), "malloc_trim", None)) is not None:
        trim(0)


@cache
def _libc() -> Any:
    """The C library; opened before the first fork, so that no child has to."""
    import ctypes

    return ctypes.CDLL(None)


def serve(connection: socket.socket, be_child: BeChild) -> None:
    """Be a nursery until the main process is gone."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(name, signal.SIG_IGN)
    # Pages that nobody writes stay shared: the collector must not touch what was imported.
    gc.collect()
    gc.freeze()
    gc.disable()
    wakeup, wakeup_write = socket.socketpair()
    wakeup.setblocking(False)
    wakeup_write.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakeup_write.fileno(), warn_on_full_buffer=False)
    children: dict[int, int] = {}
    while True:
        readable, _, _ = select.select([connection, wakeup], [], [])
        if wakeup in readable:
            with contextlib.suppress(BlockingIOError):
                wakeup.recv(4096)
            _reap(connection, children)
        if connection in readable:
            message, fds, _, _ = socket.recv_fds(connection, 16, 2)
            if not message:
                break
            index = int(message.split()[1])
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for each in (connection, wakeup, wakeup_write):
                    each.close()
                die_with_parent()
                ends = [socket.socket(fileno=fd) for fd in fds]
                run_and_exit(partial(be_child, index, *ends))
            for fd in fds:
                os.close(fd)
            children[pid] = index
            _tell(connection, b"forked %d %d\n" % (index, pid))
    for each in (connection, wakeup, wakeup_write):
        each.close()


def _reap(connection: socket.socket, children: dict[int, int]) -> None:
    while children:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if pid in children:
            _tell(connection, b"exited %d %d %d\n" % (children.pop(pid), pid, status))


def _tell(connection: socket.socket, line: bytes) -> None:
    with contextlib.suppress(BrokenPipeError):  # the worker is gone, which is noticed where it is listened to
        connection.sendall(line)
