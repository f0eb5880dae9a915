"""The operating system: exit codes, pid files, signals, users, daemons (API-114).

A **pid file** holds the number of the process that runs under it. It is created exclusively, so of two programs that
start together one wins. It is *stale*, and removed, when it names no living process of ours, or nothing (CLI-067).

A **daemon** is the grandchild of the command: the first fork lets the shell go on, the new session drops the
terminal, the second fork makes sure that no terminal can come back (CLI-107).
"""
from __future__ import annotations

import atexit
import errno
import os
import platform as _platform
import signal as _signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from .exceptions import SecurityError, SecurityWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from typing import Self

__all__ = (
    "EX_CANTCREAT",
    "EX_FAILURE",
    "EX_OK",
    "EX_UNAVAILABLE",
    "EX_USAGE",
    "IS_WINDOWS",
    "SIGMAP",
    "SYSTEM",
    "DaemonContext",
    "IS_macOS",
    "LockFailed",
    "Pidfile",
    "check_privileges",
    "close_open_fds",
    "create_pidlock",
    "detached",
    "fd_by_path",
    "get_errno_name",
    "get_fdmax",
    "ignore_errno",
    "initgroups",
    "isatty",
    "maybe_drop_privileges",
    "parse_gid",
    "parse_uid",
    "pyimplementation",
    "set_mp_process_title",
    "set_process_title",
    "setgid",
    "setgroups",
    "setuid",
    "signal_name",
    "signals",
)

EX_OK = 0
EX_FAILURE = 1
EX_USAGE = 64
EX_UNAVAILABLE = 69
EX_CANTCREAT = 73

SYSTEM = _platform.system()
IS_macOS = SYSTEM == "Darwin"
IS_WINDOWS = SYSTEM == "Windows"

DAEMON_WORKDIR = "/"
PIDFILE_MODE = 0o644

#: Names of signals by number.
SIGMAP = {member: member.name for member in _signal.Signals}


def isatty(fh: Any) -> bool:
    """Tell whether a file is a terminal."""
    try:
        return bool(fh.isatty())
    except (AttributeError, ValueError):
        return False


def pyimplementation() -> str:
    """Return the name of the Python implementation."""
    return _platform.python_implementation()


def get_fdmax(default: int | None = None) -> int | None:
    """Return how many files the process may have open; ``default`` if there is no limit."""
    try:
        import resource  # not on Windows
    except ImportError:
        return default
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return default if limit == resource.RLIM_INFINITY else limit


def get_errno_name(n: int | str) -> int:
    """Return the number of an error given by name, such as ``ENOENT``."""
    return int(getattr(errno, n)) if isinstance(n, str) else n


@contextmanager
def ignore_errno(*errnos: int | str, **kwargs: Any) -> Iterator[None]:
    """Ignore operating system errors of these numbers or names inside the block.

    Args:
        errnos: Which.
        kwargs: ``types``, the exception classes to look at; OSError by default.
    """
    numbers = {get_errno_name(n) for n in errnos}
    types = kwargs.get("types") or OSError
    try:
        yield
    except types as exc:
        if getattr(exc, "errno", None) not in numbers:
            raise


# -- Pid files ---------------------------------------------------------------------------------------------------------


class LockFailed(Exception):  # noqa: N818 - the documented name
    """The pid file belongs to another process."""


class Pidfile:
    """A pid file; as a context manager it is held inside the block.

    Args:
        path: Where.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(path)

    def acquire(self) -> Pidfile:
        """Create the file.

        Raises:
            LockFailed: It exists, or cannot be created.
        """
        try:
            self.write_pid()
        except OSError as exc:
            raise LockFailed(f"cannot create the pidfile {self.path}: {exc.strerror}") from exc
        return self

    __enter__ = acquire

    def is_locked(self) -> bool:
        """Tell whether the file exists."""
        return os.path.exists(self.path)

    def release(self, *args: Any) -> None:
        """Remove the file."""
        del args
        self.remove()

    __exit__ = release

    def read_pid(self) -> int | None:
        """Return the process number in the file; None if there is no file.

        Raises:
            ValueError: The file holds no number, or not a whole line.
        """
        try:
            with open(self.path, encoding="ascii") as fh:
                line = fh.readline()
        except FileNotFoundError:
            return None
        if not line.endswith("\n") or not line.strip().isdigit():
            raise ValueError(f"The pidfile {self.path} does not hold a process number")
        return int(line)

    def remove(self) -> None:
        """Remove the file, if it is there and may be."""
        with ignore_errno("ENOENT", "EACCES"):
            os.unlink(self.path)

    def remove_if_stale(self) -> bool:
        """Remove the file if no other process of ours runs under it; tell whether the path is free now."""
        try:
            pid = self.read_pid()
        except ValueError:
            return self._remove_stale("Broken pidfile found")
        if pid is None or pid == os.getpid():
            self.remove()
            return True
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return self._remove_stale("Stale pidfile exists")
        except PermissionError:
            return self._remove_stale("Pidfile of a process of another user exists")
        return False

    def _remove_stale(self, finding: str) -> bool:
        sys.stderr.write(f"{finding} - removing {self.path}\n")
        self.remove()
        return True

    def write_pid(self) -> None:
        """Create the file with this process's number."""
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
        with os.fdopen(os.open(self.path, flags, PIDFILE_MODE), "w", encoding="ascii") as fh:
            fh.write(f"{os.getpid()}\n")
            fh.flush()
            os.fsync(fh.fileno())


def create_pidlock(pidfile: str) -> Pidfile:
    """Create a pid file that is removed when the process exits; exit with 73 if another process holds it."""
    lock = Pidfile(pidfile)
    if lock.is_locked() and not lock.remove_if_stale():
        _refuse(lock)
    try:
        lock.acquire()
    except LockFailed:
        if not lock.is_locked():
            raise
        _refuse(lock)
    owner = os.getpid()

    def release_at_exit() -> None:
        if os.getpid() == owner:
            lock.release()

    atexit.register(release_at_exit)
    return lock


def _refuse(lock: Pidfile) -> NoReturn:
    sys.stderr.write(
        f"ERROR: Pidfile ({lock.path}) already exists.\nSeems we're already running? (pid: {lock.read_pid()})\n"
    )
    raise SystemExit(EX_CANTCREAT)


# -- Daemons -----------------------------------------------------------------------------------------------------------


def fd_by_path(paths: Iterable[str]) -> list[int]:
    """Return the open descriptors of these files."""
    wanted = {(stat.st_dev, stat.st_ino) for stat in map(os.stat, paths)}
    found = []
    for fd in range(get_fdmax(2048) or 2048):
        try:
            stat = os.fstat(fd)
        except OSError:
            continue
        if (stat.st_dev, stat.st_ino) in wanted:
            found.append(fd)
    return found


def close_open_fds(keep: Iterable[Any] | None = None) -> None:
    """Close every open file but those given, as files or descriptors."""
    kept = sorted({fd if isinstance(fd, int) else fd.fileno() for fd in keep or ()})
    low = 0
    for fd in kept:
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, get_fdmax(2048) or 2048)


class DaemonContext:
    """Turns the process into a daemon, on `open` or at the start of a block.

    Args:
        pidfile: Not used; `detached` checks it.
        workdir: Where to go; ``/`` if None.
        umask: Permissions that new files lack, as a number or octal text.
        fake: Do not fork, for debugging.
        after_chdir: Called in the new directory.
        after_forkers: Accepted for compatibility.
        kwargs: Ignored.
    """

    _is_open = False

    def __init__(
        self,
        pidfile: str | None = None,  # noqa: ARG002 - part of the documented signature
        workdir: str | None = None,
        umask: int | str | None = None,
        fake: bool = False,
        after_chdir: Callable[[], None] | None = None,
        after_forkers: bool = True,
        **kwargs: Any,  # noqa: ARG002 - part of the documented signature
    ) -> None:
        self.workdir = workdir or DAEMON_WORKDIR
        self.umask = int(umask, 8) if isinstance(umask, str) else umask
        self.fake = fake
        self.after_chdir = after_chdir
        self.after_forkers = after_forkers

    def redirect_to_null(self, fd: int | None) -> None:
        """Make a descriptor read nothing and write nowhere."""
        if fd is not None:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, fd)
            if null != fd:
                os.close(null)

    def open(self) -> None:
        """Become a daemon."""
        if self._is_open:
            return
        if not self.fake:
            self._detach()
        os.chdir(self.workdir)
        if self.umask is not None:
            os.umask(self.umask)
        if self.after_chdir:
            self.after_chdir()
        if not self.fake:
            # urandom: some libraries keep it open for good, and fail if another file gets its descriptor.
            close_open_fds([0, 1, 2, *fd_by_path(["/dev/urandom"])])
            for fd in (0, 1, 2):
                self.redirect_to_null(fd)
        self._is_open = True

    def _detach(self) -> None:
        if os.fork():
            os._exit(0)
        os.setsid()
        if os.fork():
            os._exit(0)

    def close(self, *args: Any) -> None:
        """Note that the block ended."""
        del args
        self._is_open = False

    def __enter__(self) -> Self:
        self.open()
        return self

    __exit__ = close


def detached(
    logfile: str | None = None,
    pidfile: str | None = None,
    uid: int | str | None = None,
    gid: int | str | None = None,
    umask: int | str = 0,
    workdir: str | None = None,
    fake: bool = False,
    **opts: Any,
) -> DaemonContext:
    """Return a context manager whose block runs as a daemon.

    The process takes the identity of ``uid`` and ``gid`` first. Log file and pid file are tried out, so that what is
    wrong with them is seen on the terminal.
    """
    workdir = os.getcwd() if workdir is None else workdir
    maybe_drop_privileges(uid=uid, gid=gid)

    def try_files() -> None:
        if logfile:
            open(logfile, "a").close()
        if pidfile:
            create_pidlock(pidfile).release()

    return DaemonContext(umask=umask, workdir=workdir, fake=fake, after_chdir=try_files, **opts)


# -- Users -------------------------------------------------------------------------------------------------------------


def parse_uid(uid: int | str) -> int:
    """Return the number of a user given by number or name.

    Raises:
        KeyError: No such user.
    """
    try:
        return int(uid)
    except ValueError:
        import pwd  # not on Windows

        try:
            return pwd.getpwnam(str(uid)).pw_uid
        except KeyError:
            raise KeyError(f"User does not exist: {uid}") from None


def parse_gid(gid: int | str) -> int:
    """Return the number of a group given by number or name.

    Raises:
        KeyError: No such group.
    """
    try:
        return int(gid)
    except ValueError:
        import grp  # not on Windows

        try:
            return grp.getgrnam(str(gid)).gr_gid
        except KeyError:
            raise KeyError(f"Group does not exist: {gid}") from None


def setgroups(groups: Iterable[int]) -> None:
    """Set the additional groups; an unprivileged process that has them already is content."""
    groups = list(groups)
    try:
        os.setgroups(groups)
    except PermissionError:
        if set(groups) - set(os.getgroups()):
            raise


def initgroups(uid: int, gid: int) -> None:
    """Set the additional groups to those of a user."""
    import pwd  # not on Windows

    os.initgroups(pwd.getpwuid(uid).pw_name, gid)


def setgid(gid: int | str) -> None:
    """Become a member of a group given by number or name."""
    os.setgid(parse_gid(gid))


def setuid(uid: int | str) -> None:
    """Become a user given by number or name."""
    os.setuid(parse_uid(uid))


def maybe_drop_privileges(uid: int | str | None = None, gid: int | str | None = None) -> None:
    """Become user and group given, for good; a user without a group brings its own (CLI-043).

    Raises:
        SecurityError: The process could become root again.
    """
    if IS_WINDOWS:
        return
    number = parse_uid(uid) if uid else None
    group = parse_gid(gid) if gid else None
    if number is not None:
        if os.geteuid() == 0 or number != os.geteuid():
            import pwd  # not on Windows

            group = pwd.getpwuid(number).pw_gid if group is None else group
            os.setgid(group)
            initgroups(number, group)
            os.setuid(number)
        _check_dropped(number)
    elif group is not None:
        os.setgid(group)


def _check_dropped(uid: int) -> None:
    if uid == 0:
        return
    try:
        os.setuid(0)
    except OSError:
        return
    raise SecurityError(f"The process became user {uid}, but could become root again: the system keeps a way back.")


def check_privileges(accept_content: Collection[str]) -> None:
    """Refuse to run as root with pickle, which lets senders run anything; warn about root without it (ROUTE-062).

    Args:
        accept_content: Names and content types that the worker accepts.

    Raises:
        SecurityError: Root, or a member of ``sudo`` or ``wheel``, with pickle, and C_FORCE_ROOT is not set.
    """
    if not hasattr(os, "getuid"):
        return
    ids = {"uid": os.getuid(), "euid": os.geteuid(), "gid": os.getgid(), "egid": os.getegid()}
    if not (0 in ids.values() or _is_administrators(ids["gid"]) or _is_administrators(ids["egid"])):
        return
    who = ", ".join(f"{name}={number}" for name, number in ids.items())
    pickle = {"pickle", "application/x-python-serialize"} & set(accept_content)
    if pickle and not os.environ.get("C_FORCE_ROOT"):
        raise SecurityError(
            f"A worker with administrator rights ({who}) that accepts pickle would let every sender run code as root. "
            "Take pickle out of accept_content, run as another user (--uid), or set C_FORCE_ROOT=1 to go on regardless."
        )
    import warnings

    text = f"The worker runs with administrator rights ({who}); run it as another user (--uid)."
    warnings.warn(SecurityWarning(text), stacklevel=2)


def _is_administrators(gid: int) -> bool:
    import grp  # not on Windows

    try:
        return grp.getgrgid(gid).gr_name in {"sudo", "wheel"}
    except KeyError:
        return False


# -- Signals and titles ------------------------------------------------------------------------------------------------


class Signals:
    """Operating system signals by name: ``signals["INT"] = handler``.

    A name can do without ``SIG``. Outside the main thread, where Python allows no handlers, setting one does nothing.
    """

    ignored = _signal.SIG_IGN
    default = _signal.SIG_DFL

    def arm_alarm(self, seconds: float) -> None:
        """Ask for ``ALRM`` in so many seconds."""
        _signal.setitimer(_signal.ITIMER_REAL, seconds)

    def reset_alarm(self) -> int:
        """Take `arm_alarm` back."""
        return _signal.alarm(0)

    def supported(self, name: str) -> bool:
        """Tell whether the system has the signal."""
        try:
            self.signum(name)
        except AttributeError:
            return False
        return True

    def signum(self, name: int | str) -> int:
        """Return the number of a signal.

        Raises:
            AttributeError: The system has no such signal.
        """
        if isinstance(name, int):
            return name
        member = name if name.startswith("SIG") else f"SIG{name}"
        return int(getattr(_signal, member))

    def reset(self, *signal_names: str) -> None:
        """Let the system treat these signals as it does by default."""
        self.update((name, self.default) for name in signal_names)

    def ignore(self, *names: str) -> None:
        """Ignore these signals."""
        self.update((name, self.ignored) for name in names)

    def __getitem__(self, name: str) -> Any:
        return _signal.getsignal(self.signum(name))

    def __setitem__(self, name: str, handler: Any) -> None:
        try:
            _signal.signal(self.signum(name), handler)
        except (AttributeError, ValueError):
            return

    def update(self, _d_: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None, **sigmap: Any) -> None:
        """Set several handlers."""
        for name, handler in dict(_d_ or {}, **sigmap).items():
            self[name] = handler


signals = Signals()


def signal_name(signum: int) -> str:
    """Return the name of a signal without ``SIG``."""
    return SIGMAP[_signal.Signals(signum)][3:]


def set_process_title(progname: str, info: str | None = None) -> str:
    """Show ``[progname] info`` as the name of the process, where setproctitle is installed; return the text."""
    text = f"[{progname}] {info}" if info else f"[{progname}]"
    try:
        import setproctitle
    except ImportError:
        return text
    setproctitle.setproctitle(text)
    return text


def set_mp_process_title(progname: str, info: str | None = None, hostname: str | None = None) -> str:
    """As `set_process_title`, with the name of the process among its siblings."""
    import multiprocessing

    name = multiprocessing.current_process().name
    node = f"{hostname.partition('.')[0]}:" if hostname else ""
    return set_process_title(f"{progname}: {node}{name}", info=info)
