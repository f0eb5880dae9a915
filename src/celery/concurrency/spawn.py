"""Processes that begin with a fresh interpreter instead of a fork.

There are two kinds: children, with ``--pool-start-method=spawn`` (for libraries that do not survive a fork), and the
nursery that replaces one that died: by then the worker has threads, and may not fork.

*Birth*: what such a process is told. It travels as a pickle, in a file without a name whose descriptor is inherited
together with the sockets. Before it, as it may take them to read it, come the module path and the working directory.

Rules
    1. The application is imported from the module that holds it; one in the main script is found by running that
       script under the name ``__mp_main__``, so that ``if __name__ == "__main__"`` keeps it from starting a worker.
    2. Settings that were changed at run time (the command line's among them) are applied on top.
    3. Whoever is born dies with the worker, as those who are forked do.
"""

from __future__ import annotations

import os
import pickle
import runpy
import signal
import socket
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from celery.concurrency import child, nursery
from celery.concurrency.slots import Slots
from celery.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from celery.app.base import Celery

_MAIN = "__mp_main__"


class Place(NamedTuple):
    """Where an application is found."""

    module: str
    attribute: str
    #: The file to run as the main module first; empty: `module` can be imported.
    script: str = ""


class Birth(NamedTuple):
    """What a new process is told."""

    place: Place
    #: Settings changed at run time.
    changes: dict[str, Any]
    hostname: str
    #: Of `celery.concurrency.base.Pool`.
    options: dict[str, Any]
    #: Descriptor, rows and positions of the slots.
    slots: tuple[int, int, int]
    #: Descriptors: both lanes of a child, or what leads from a nursery to the worker.
    sockets: tuple[int, ...]
    #: The row of a child; None: be a nursery.
    row: int | None = None


def find(app: Celery) -> Place:
    """Where another process finds this application.

    Raises:
        ImproperlyConfigured: it is not a global of a module.
    """
    for name, module in list(sys.modules.items()):
        if name == "celery" or name.startswith("celery.") or not isinstance(module, ModuleType):
            continue
        for attribute, value in list(vars(module).items()):
            if value is app:
                return _place(name, attribute, module)
    raise ImproperlyConfigured(
        f"The application {app.main!r} is not a global of any module, so a new process cannot import it. Assign it to "
        "one (app = Celery(...)), or use --pool-start-method=fork."
    )


def _place(name: str, attribute: str, module: ModuleType) -> Place:
    if name not in {"__main__", _MAIN}:
        return Place(name, attribute)
    if module.__spec__ is not None:
        return Place(module.__spec__.name, attribute)
    return Place(_MAIN, attribute, os.path.abspath(module.__file__ or ""))


def start(birth: Birth) -> int:
    """Execute a process; its pid. The caller waits for its end.

    Raises:
        ImproperlyConfigured: a setting that was changed at run time cannot be pickled.
    """
    import tempfile  # half a MiB of modules that few workers need

    with tempfile.TemporaryFile() as file:
        try:
            file.write(pickle.dumps((sys.path, sys.argv, os.getcwd())) + pickle.dumps(birth))
        except Exception as exc:
            raise ImproperlyConfigured(
                f"A setting made at run time cannot be sent to a new process: {exc}. Set it in the configuration."
            ) from exc
        file.seek(0)
        for descriptor in (file.fileno(), birth.slots[0], *birth.sockets):
            os.set_inheritable(descriptor, True)
        command = [sys.executable, "-m", "celery.concurrency.spawn", str(file.fileno())]
        return os.posix_spawn(sys.executable, command, os.environ)


def be_born(descriptor: int) -> None:
    """Be what the birth says, until that ends."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    nursery.die_with_parent()
    with open(descriptor, "rb") as file:
        sys.path[:], sys.argv[:], folder = pickle.load(file)  # noqa: S301 - written by our own worker
        os.chdir(folder)
        birth: Birth = pickle.load(file)  # noqa: S301 - as above
    app = _application(birth)
    slots = Slots(*birth.slots)
    ends = [socket.socket(fileno=each) for each in birth.sockets]

    def be_child(index: int, sync_socket: socket.socket, async_socket: socket.socket) -> None:
        child.serve(
            app,
            hostname=birth.hostname,
            index=index,
            memory=slots,
            sync_socket=sync_socket,
            async_socket=async_socket,
            options=birth.options,
        )

    if birth.row is None:
        nursery.serve(ends[0], be_child)
    else:
        be_child(birth.row, *ends)


def _application(birth: Birth) -> Celery:
    place = birth.place
    if place.script:
        main = ModuleType(_MAIN)
        main.__dict__.update(runpy.run_path(place.script, run_name=_MAIN))
        sys.modules["__main__"] = sys.modules[_MAIN] = main
    else:
        __import__(place.module)
    app: Celery = getattr(sys.modules[place.module], place.attribute)
    app.conf.update(birth.changes)
    app.loader.import_default_modules()
    app.finalize()
    if birth.options.get("loglevel") is not None:
        conf = app.conf
        app.log.setup(
            birth.options["loglevel"],
            birth.options.get("logfile"),
            redirect_stdouts=conf.worker_redirect_stdouts,
            redirect_level=conf.worker_redirect_stdouts_level,
            hostname=birth.hostname,
        )
    return app


if __name__ == "__main__":
    nursery.run_and_exit(lambda: be_born(int(sys.argv[1])))
