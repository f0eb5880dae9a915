"""How signals end a worker (CLI-050..057).

What a signal means depends on how far the shutdown has gone. *Stage*: how far. *Step*: the next stage, what is said
(to the real stdout, past any redirection), and what the worker is asked for.

    stage     TERM           INT                 QUIT
    running   warm           warm, exit code 1   soft or cold
    warm      (said again)   soft or cold        soft or cold
    soft      (said again)   cold                cold
    cold      (said again)   hard                hard

A TERM that is said again ends what waits for a store or a broker that is away; what runs goes on
(`celery.worker.leaving`).
"Soft or cold": soft where worker_soft_shutdown_timeout grants running tasks some seconds, else cold. *Hard* raises
WorkerTerminate where the main thread is; when the worker has stopped already, and only a thread of the user's keeps
the process, it ends the process. With REMAP_SIGTERM=SIGQUIT in the environment, TERM means QUIT.

Rules
    1. A handler decides by the table, speaks, and asks. What takes time happens in the worker's loop.
    2. Receivers of ``worker_shutting_down`` are code of users: they run on a thread of their own, once for each stage.
    3. Handlers write with `os.write`: the main thread may hold the lock of any stream when a signal arrives.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import sys
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from celery import platforms, signals
from celery.apps.stacks import all_stacks
from celery.exceptions import WorkerTerminate
from celery.platforms import EX_FAILURE, EX_OK

if TYPE_CHECKING:
    from types import FrameType

__all__ = ("ShutdownSignals", "Stoppable", "safe_say")


class Stoppable(Protocol):
    """What is asked to stop: a worker."""

    hostname: str
    app: Any

    def request_stop(self, how: str = "warm", exitcode: int = 0) -> None:
        """Ask for a stop: "warm", "soft" or "cold"."""

    def hurry(self) -> None:
        """It was asked for again."""


class Stage(Enum):
    """How far the shutdown has gone."""

    RUNNING = "running"
    WARM = "warm"
    SOFT = "soft"
    COLD = "cold"
    HARD = "hard"


class Step(NamedTuple):
    """What a signal brings about."""

    to: Stage
    #: Texts that tools look for.
    say: tuple[str, ...]
    exitcode: int = EX_FAILURE


_WARM = "worker: Warm shutdown (MainProcess)"
_COLD = "worker: Cold shutdown (MainProcess)"
_AGAIN_COLD = "worker: Hitting Ctrl+C again will initiate cold shutdown, terminating all running tasks!"
_AGAIN_HARD = "worker: Hitting Ctrl+C again will terminate all running tasks!"
_GRACEFULLY = "Waiting gracefully for cold shutdown to complete..."

_TO_WARM = Step(Stage.WARM, (_WARM,), EX_OK)
_TO_WARM_BY_HAND = Step(Stage.WARM, (_AGAIN_COLD, _WARM))
_TO_SOFT = Step(Stage.SOFT, (_AGAIN_HARD,))
_TO_COLD = Step(Stage.COLD, (_GRACEFULLY,))
_TO_HARD = Step(Stage.HARD, (_COLD,))

#: (stage, signal) -> step. Soft becomes cold where no time is granted.
STEPS: dict[tuple[Stage, str], Step] = {
    (Stage.RUNNING, "SIGTERM"): _TO_WARM,
    (Stage.RUNNING, "SIGINT"): _TO_WARM_BY_HAND,
    (Stage.RUNNING, "SIGQUIT"): _TO_SOFT,
    (Stage.WARM, "SIGINT"): _TO_SOFT,
    (Stage.WARM, "SIGQUIT"): _TO_SOFT,
    (Stage.SOFT, "SIGINT"): _TO_COLD,
    (Stage.SOFT, "SIGQUIT"): _TO_COLD,
    (Stage.COLD, "SIGINT"): _TO_HARD,
    (Stage.COLD, "SIGQUIT"): _TO_HARD,
}


def safe_say(msg: str, f: Any = None) -> None:
    """Write a line to the real stdout (or to the file given) from a signal handler."""
    stream = f or sys.__stdout__
    if stream is not None:
        with contextlib.suppress(OSError, ValueError):  # it may be closed, or its reader gone
            os.write(stream.fileno(), f"\n{msg}\n".encode())


class ShutdownSignals:
    """Signal handlers of one worker.

    Args:
        worker: whom to ask.
        command: how the program was called, shown when it restarts.
    """

    def __init__(self, worker: Stoppable, command: str = "") -> None:
        self.worker = worker
        self.command = command
        self.stage = Stage.RUNNING
        #: HUP was received: the program is to be executed anew when the worker has stopped.
        self.restart_requested = False
        #: The worker has stopped.
        self.over = False

    def install(self) -> None:
        """Handle the signals from now on. Called in the main thread."""
        handled = platforms.signals
        for name in ("SIGTERM", "SIGINT", "SIGQUIT"):
            if handled.supported(name):
                handled[name] = self._handle
        # On a terminal, HUP says that the terminal is gone: the default, which ends us, is right there.
        if handled.supported("SIGHUP") and not platforms.isatty(sys.__stdout__):
            handled["SIGHUP"] = _restart_not_supported if platforms.IS_macOS else self._restart
        if handled.supported("SIGUSR1") and hasattr(sys, "_current_frames"):
            handled["SIGUSR1"] = _tell_stacks

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        del frame
        name = f"SIG{platforms.signal_name(signum)}"
        self.on_signal("SIGQUIT" if name == "SIGTERM" and os.environ.get("REMAP_SIGTERM") == "SIGQUIT" else name)

    def on_signal(self, name: str) -> None:
        """Do what the table says.

        Raises:
            WorkerTerminate: a hard shutdown.
        """
        step = STEPS.get((self.stage, name))
        if step is None:
            safe_say(_WARM)
            self.worker.hurry()
            return
        stage = step.to
        if stage is Stage.SOFT and not self.worker.app.conf.worker_soft_shutdown_timeout:
            stage = Stage.COLD
        self.stage = stage
        for text in step.say:
            safe_say(text)
        if stage is Stage.HARD:
            if self.over:
                os._exit(step.exitcode)
            raise WorkerTerminate(step.exitcode)
        how = "Warm" if stage is Stage.WARM else "Cold"
        if signals.worker_shutting_down.receivers:
            _thread.start_new_thread(self._announce, (name, how, step.exitcode))
        self.worker.request_stop(stage.value, step.exitcode)

    def _announce(self, name: str, how: str, exitcode: int) -> None:
        signals.worker_shutting_down.send(sender=self.worker.hostname, sig=name, how=how, exitcode=exitcode)

    def _restart(self, signum: int, frame: FrameType | None) -> None:
        del signum, frame
        safe_say(f"Restarting celery worker ({self.command})")
        self.restart_requested = True
        self.worker.request_stop("warm", EX_OK)


def _restart_not_supported(signum: int, frame: FrameType | None) -> None:
    del signum, frame
    safe_say("SIGHUP not supported: Restarting with HUP is unstable on this platform!")


def _tell_stacks(signum: int, frame: FrameType | None) -> None:
    del signum, frame
    safe_say(all_stacks(), sys.__stderr__)
