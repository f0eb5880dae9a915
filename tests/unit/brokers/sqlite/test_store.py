"""Opening the file, its errors in words, and forks."""

from __future__ import annotations

import os
import select
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

from celery import exceptions
from celery.brokers.base import Publish
from celery.brokers.sqlite import Sender
from celery.brokers.sqlite.store import SCHEMA_VERSION, path_of
from celery.wire.envelope import Envelope

MESSAGE = Publish(Envelope({"task": "w.add", "id": "1"}, b"[]"), "", "q")


def exit_code_of(child, within=15.0):
    """Of a forked process, which is killed when it takes too long."""
    process = os.pidfd_open(child)
    if not select.select([process], (), (), within)[0]:
        os.kill(child, signal.SIGKILL)
    os.close(process)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def sender_of(path, **options):
    return Sender(f"sqlite:///{path}", options)


def test_a_url_names_an_absolute_or_a_relative_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert path_of("sqlite:////srv/a%20b.db") == "/srv/a b.db"
    assert path_of("sqlite:///a.db") == str(tmp_path / "a.db")


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:"])
def test_a_url_without_a_file_is_refused_with_the_way_out(url):
    with pytest.raises(exceptions.ImproperlyConfigured, match=r"names no file.*memory://"):
        Sender(url, {})


def test_an_unknown_synchronous_mode_is_refused(sqlite_path):
    with pytest.raises(exceptions.ImproperlyConfigured, match="SOMETIMES.*NORMAL"):
        sender_of(sqlite_path, synchronous="sometimes")


def test_constructing_touches_nothing(sqlite_path):
    sender_of(sqlite_path)
    assert not sqlite_path.exists()


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(exceptions.ImproperlyConfigured, match=r"nowhere/a\.db cannot be opened: its folder"):
        sender_of(tmp_path / "nowhere" / "a.db").publish([MESSAGE])


def test_a_file_that_is_no_database_is_named_and_left_alone(sqlite_path):
    sqlite_path.write_text("Dear diary, " * 100)
    with pytest.raises(exceptions.ImproperlyConfigured, match=f"{sqlite_path} is not a SQLite database"):
        sender_of(sqlite_path).publish([MESSAGE])
    assert sqlite_path.read_text().startswith("Dear diary")


def test_a_file_with_tables_of_another_program_is_named(sqlite_path):
    with sqlite3.connect(sqlite_path) as file:
        file.execute("CREATE TABLE message (subject, body)")
    with pytest.raises(exceptions.ImproperlyConfigured, match=f"{sqlite_path} has tables of another program"):
        sender_of(sqlite_path).publish([MESSAGE])


def test_a_newer_schema_is_refused_with_both_versions(sqlite_path):
    with sqlite3.connect(sqlite_path) as file:
        file.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 6}")
    file.close()
    with pytest.raises(exceptions.ImproperlyConfigured, match=f"version {SCHEMA_VERSION + 6}.*upgrade"):
        sender_of(sqlite_path).length("q")


def test_a_file_that_stays_locked_is_an_operational_error_and_the_sender_recovers(sqlite_path):
    sender = sender_of(sqlite_path, busy_timeout=0.1)
    sender.publish([MESSAGE])
    other = sqlite3.connect(sqlite_path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(exceptions.OperationalError, match=f"{sqlite_path} stayed locked.*busy_timeout"):
        sender.publish([MESSAGE])
    other.execute("ROLLBACK")
    other.close()
    sender.publish([MESSAGE])
    assert sender.length("q") == 2
    sender.close()


def test_a_publish_waits_no_longer_than_its_timeout(sqlite_path):
    sender = sender_of(sqlite_path, busy_timeout=60)
    sender.publish([MESSAGE])
    other = sqlite3.connect(sqlite_path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(exceptions.OperationalError):
        sender.publish([MESSAGE], timeout=0.05)
    other.close()
    sender.close()


def test_who_waits_for_another_writer_goes_on_soon_after_its_end(sqlite_path):
    sender = sender_of(sqlite_path)
    sender.publish([MESSAGE])

    def waited_too_long():
        """Seconds between the end of another process's transaction and ours. SQLite by itself takes 0.09 here."""
        ended = []

        def hold():
            other = sqlite3.connect(sqlite_path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            begun.set()
            time.sleep(0.44)  # SQLite's own waits come to 0.428 s, then to 0.528 s
            other.execute("ROLLBACK")
            ended.append(time.monotonic())
            other.close()

        begun = threading.Event()
        holder = threading.Thread(target=hold)
        holder.start()
        assert begun.wait(10)
        sender.publish([MESSAGE])
        done = time.monotonic()
        holder.join()
        return done - ended[0]

    assert min(waited_too_long() for _ in range(4)) < 0.04
    sender.close()


def test_a_full_disk_loses_nothing_that_was_sent(sqlite_path):
    # A limit on the size of files is a full disk without the need for one.
    script = f"""
import resource
from celery import exceptions
from celery.brokers.base import Publish
from celery.brokers.sqlite import Sender
from celery.wire.envelope import Envelope
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
sender = Sender("sqlite:///{sqlite_path}", {{}})
sent = 0
try:
    while True:
        sender.publish([Publish(Envelope({{"id": str(sent)}}, b"x" * 5000), "", "q")])
        sent += 1
except exceptions.OperationalError as exc:
    print(sent, "{sqlite_path}" in str(exc))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    sent, named = done.stdout.split()
    assert named == "True"
    assert int(sent) > 10
    sender = sender_of(sqlite_path)
    assert sender.length("q") == int(sent)
    sender.close()


def test_many_processes_create_the_file_at_once(sqlite_path):
    script = (
        "import sys; from celery.brokers.sqlite import Sender; from celery.brokers.base import Publish;"
        "from celery.wire.envelope import Envelope;"
        f"Sender('sqlite:///{sqlite_path}', {{}}).publish([Publish(Envelope({{}}, b''), '', 'q')])"
    )
    processes = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(4)]
    assert [process.wait(30) for process in processes] == [0] * 4
    sender = sender_of(sqlite_path)
    assert sender.length("q") == 4
    sender.close()


def test_a_forked_process_and_its_parent_both_go_on_sending(sqlite_path):
    sender = sender_of(sqlite_path)
    sender.publish([MESSAGE])
    child = os.fork()
    if not child:
        status = 1
        try:
            sender.publish([MESSAGE] * 10)
            sender.close()
            status = 0
        finally:
            os._exit(status)
    sender.publish([MESSAGE] * 10)
    assert exit_code_of(child) == 0
    assert sender.length("q") == 21
    sender.close()


def test_a_fork_beside_threads_that_send_harms_neither_side(sqlite_path):
    enough = threading.Event()
    counts = [0, 0]

    def send(number):
        own = sender_of(sqlite_path)
        while not enough.is_set():
            own.publish([MESSAGE])
            counts[number] += 1
        own.close()

    threads = [threading.Thread(target=send, args=(number,), daemon=True) for number in range(2)]
    for thread in threads:
        thread.start()
    in_main = sender_of(sqlite_path)
    in_main.publish([MESSAGE])
    for _ in range(5):
        child = os.fork()
        if not child:
            status = 1
            try:
                in_main.publish([MESSAGE])
                status = 0
            finally:
                os._exit(status)
        assert exit_code_of(child) == 0
    enough.set()
    for thread in threads:
        thread.join(10)
    assert in_main.length("q") == sum(counts) + 1 + 5
    in_main.close()
    file = sqlite3.connect(sqlite_path)
    assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    file.close()
