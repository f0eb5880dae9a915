"""A corner of one's own in a server that others use too: a Redis database, a vhost, an SQL database.

Each function is a context manager that gives a URL and takes the corner away again. Two
processes never get the same one, whether they belong to one test run or to several on the machine,
and nothing that was there before is touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from services import ROLE, SERVICES

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Numbers of the Redis databases that may be claimed; 0 is where users' own data lives.
REDIS_DATABASES = range(1, 16)


def redis_commands(database: int, *commands: str) -> list[str]:
    """Run inline commands in one database of the shared Redis; the first line of each reply.

    Raises:
        RuntimeError: Redis refused one of them.
    """
    with socket.create_connection(("127.0.0.1", SERVICES["redis"].port), timeout=5) as connection:
        lines = (f"SELECT {database}", *commands)
        connection.sendall("".join(f"{line}\r\n" for line in lines).encode())
        with connection.makefile("r", encoding="utf-8") as replies:
            answers = [replies.readline().rstrip() for _ in lines]
    for line, answer in zip(lines, answers, strict=True):
        if answer.startswith("-"):
            raise RuntimeError(f"Redis refused {line!r}: {answer[1:]}")
    return answers[1:]


def locked_file(path: Path) -> TextIO | None:
    """The file, locked until it is closed; None when somebody else has it."""
    try:
        file = path.open("a+")
    except OSError:  # of another user
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    file.seek(0)
    return file


@contextlib.contextmanager
def redis_database() -> Iterator[str]:
    """An empty Redis database that no other process of ours uses, emptied again at the end.

    The claim is a locked file, which the kernel unlocks however its holder ends. The file says "in use" from
    claim to release, so that the leavings of a killed run are told from data of a stranger, which is let alone.

    Raises:
        RuntimeError: every database is claimed or holds data that is not ours.
    """
    for number in REDIS_DATABASES:
        claim = locked_file(Path(tempfile.gettempdir()) / f"celeriac-redis-{number}.lock")
        if claim is None:
            continue
        with claim:
            if not claim.read() and redis_commands(number, "DBSIZE") != [":0"]:
                continue
            claim.write("in use")
            claim.flush()
            redis_commands(number, "FLUSHDB")
            try:
                yield f"redis://127.0.0.1:{SERVICES['redis'].port}/{number}"
            finally:
                redis_commands(number, "FLUSHDB")
                claim.truncate(0)
            return
    raise RuntimeError(
        f"Redis databases {REDIS_DATABASES[0]} to {REDIS_DATABASES[-1]} are all in use; "
        "empty one of them (redis-cli -n NUMBER FLUSHDB) or run fewer tests at once (make test JOBS=2)"
    )


def rabbitmqctl(*arguments: str) -> None:
    """Run one command of RabbitMQ's administration.

    Raises:
        RuntimeError: it is not there, or refused; most often it has to be run as root.
    """
    program = shutil.which("rabbitmqctl", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        raise RuntimeError("rabbitmqctl is not installed; vhosts for tests are made with it")
    ended = subprocess.run([program, "-q", *arguments], capture_output=True, text=True, check=False)
    if ended.returncode:
        said = (ended.stderr or ended.stdout).strip()
        raise RuntimeError(f"rabbitmqctl {' '.join(arguments)} failed (it has to be run as root): {said}")


@contextlib.contextmanager
def rabbitmq_vhost() -> Iterator[str]:
    """A new vhost that the user guest may do anything in, deleted at the end with all its queues."""
    vhost = f"celeriac-{uuid.uuid4().hex[:12]}"
    rabbitmqctl("add_vhost", vhost)
    try:
        rabbitmqctl("set_permissions", "-p", vhost, "guest", ".*", ".*", ".*")
        yield f"amqp://guest:guest@127.0.0.1:{SERVICES['rabbitmq'].port}/{vhost}"
    finally:
        rabbitmqctl("delete_vhost", vhost)


@contextlib.contextmanager
def postgres_database() -> Iterator[str]:
    """A new PostgreSQL database, dropped at the end together with whoever is still connected."""
    import psycopg  # the clients are optional: only who uses the server has to have them

    name = f"{ROLE}_{uuid.uuid4().hex[:12]}"
    server = f"postgresql://{ROLE}:{ROLE}@127.0.0.1:{SERVICES['postgres'].port}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        try:
            yield f"{server}/{name}"
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@contextlib.contextmanager
def mariadb_database() -> Iterator[str]:
    """A new MariaDB database, dropped at the end."""
    import pymysql  # as above

    name = f"{ROLE}_{uuid.uuid4().hex[:12]}"
    port = SERVICES["mariadb"].port

    def execute(statement: str) -> None:
        # A connection each: the server closes those that idle through a long session.
        with pymysql.connect(host="127.0.0.1", port=port, user=ROLE, password=ROLE, autocommit=True) as connection:
            connection.cursor().execute(statement)

    execute(f"CREATE DATABASE {name}")
    try:
        yield f"mysql://{ROLE}:{ROLE}@127.0.0.1:{port}/{name}"
    finally:
        execute(f"DROP DATABASE {name}")
