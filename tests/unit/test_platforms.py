"""Pid files, privileges, signals and daemons (API-114, CLI-067, CLI-107, ROUTE-062)."""

import errno
import os
import signal
import stat
import subprocess
import sys

import pytest

from celery import platforms
from celery.exceptions import SecurityError
from celery.platforms import LockFailed, Pidfile, create_pidlock, ignore_errno, signals


@pytest.fixture
def path(tmp_path):
    return tmp_path / "worker.pid"


def test_a_pidfile_holds_the_process_number_on_a_line(path):
    with Pidfile(path) as lock:
        assert path.read_text() == f"{os.getpid()}\n"
        assert stat.S_IMODE(path.stat().st_mode) & 0o600 == 0o600
        assert lock.is_locked()
        assert lock.read_pid() == os.getpid()
    assert not path.exists()


def test_a_pidfile_is_created_once(path):
    with Pidfile(path), pytest.raises(LockFailed, match=r"worker\.pid"):
        Pidfile(path).acquire()


@pytest.mark.parametrize("content", ["", "nonsense\n", "123"])
def test_a_broken_pidfile_is_removed_with_a_notice(path, content, capsys):
    path.write_text(content)
    assert Pidfile(path).remove_if_stale()
    assert not path.exists()
    assert str(path) in capsys.readouterr().err


def test_a_pidfile_of_a_dead_process_is_removed(path, capsys):
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait(timeout=30)
    path.write_text(f"{child.pid}\n")
    lock = create_pidlock(str(path))
    assert lock.read_pid() == os.getpid()
    assert "Stale" in capsys.readouterr().err
    lock.release()


def test_a_pidfile_of_a_living_process_stops_the_program(path, capsys):
    path.write_text(f"{os.getppid()}\n")
    with pytest.raises(SystemExit) as info:
        create_pidlock(str(path))
    assert info.value.code == 73
    assert capsys.readouterr().err == (
        f"ERROR: Pidfile ({path}) already exists.\nSeems we're already running? (pid: {os.getppid()})\n"
    )
    assert path.exists()


def test_a_pidlock_goes_when_the_process_ends(path):
    held = repr(str(path))
    code = f"from celery.platforms import create_pidlock; create_pidlock({held}); print(open({held}).read())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert run.stdout.strip().isdigit()
    assert not path.exists()


def test_listed_errors_are_ignored_and_others_are_not(tmp_path):
    with ignore_errno("ENOENT"):
        (tmp_path / "missing").read_text()
    with ignore_errno(errno.ENOENT):
        (tmp_path / "missing").read_text()
    with pytest.raises(FileNotFoundError), ignore_errno("EACCES"):
        (tmp_path / "missing").read_text()


def test_users_and_groups_are_found_by_number_and_name():
    assert platforms.parse_uid("12") == platforms.parse_uid(12) == 12
    assert platforms.parse_uid("root") == 0
    assert platforms.parse_gid("root") == 0
    with pytest.raises(KeyError, match="no-such-user"):
        platforms.parse_uid("no-such-user")
    with pytest.raises(KeyError, match="no-such-group"):
        platforms.parse_gid("no-such-group")


def test_signals_are_set_and_read_by_name():
    before = signals["USR2"]
    try:
        signals["USR2"] = handler = lambda *_: None
        assert signals["SIGUSR2"] is handler
        signals.ignore("USR2")
        assert signals["USR2"] == signal.SIG_IGN
        signals.reset("USR2")
        assert signals["USR2"] == signal.SIG_DFL
    finally:
        signals["USR2"] = before
    assert signals.signum("INT") == signals.signum("SIGINT") == 2
    assert not signals.supported("NOPE")
    assert platforms.signal_name(9) == "KILL"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is refused")
class TestRoot:
    def test_with_pickle_is_refused(self, monkeypatch):
        monkeypatch.delenv("C_FORCE_ROOT", raising=False)
        with pytest.raises(SecurityError, match="pickle"):
            platforms.check_privileges({"json", "pickle"})

    def test_without_pickle_or_with_force_is_warned(self, monkeypatch):
        with pytest.warns(platforms.SecurityWarning, match="uid=0"):
            platforms.check_privileges({"json"})
        monkeypatch.setenv("C_FORCE_ROOT", "1")
        with pytest.warns(platforms.SecurityWarning):
            platforms.check_privileges({"pickle"})

    def test_drops_its_rights_for_good(self):
        code = (
            "import os; from celery.platforms import maybe_drop_privileges\n"
            "maybe_drop_privileges(uid='nobody')\n"
            "print(os.getuid() == os.geteuid() != 0, os.getgid() != 0, 0 in os.getgroups())"
        )
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
        assert run.stdout.split() == ["True", "True", "False"]


def test_a_daemon_leaves_the_terminal_and_its_files_behind(tmp_path):
    report = tmp_path / "report"
    os.mkfifo(report)
    code = (
        "import os; from celery.platforms import detached\n"
        f"with detached(workdir={str(tmp_path)!r}, umask='027'):\n"
        "    with open('report', 'w') as fh: print(os.getcwd(), os.getsid(0) != os.getpid(),\n"
        "        os.readlink('/proc/self/fd/1'), oct(os.umask(0)), file=fh)\n"
    )
    subprocess.run([sys.executable, "-c", code], timeout=30, check=True)
    cwd, led_by_another, stdout, umask = report.read_text().split()
    assert cwd == str(tmp_path)
    assert led_by_another == "True"
    assert stdout == "/dev/null"
    assert umask == "0o27"
