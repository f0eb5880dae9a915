#!/usr/bin/env python3
"""Make the servers that the tests and benchmarks talk to answer on loopback.

A server that answers is left exactly as it is. One that does not is started when it is
installed, and installed first when we are root on Debian or Ubuntu; otherwise the commands to
run are printed and the exit status is 1. The databases get one role, ``celeriac``, that may
make databases named ``celeriac...``; nothing else is ever changed in a server.

``SERVICES`` chooses: ``all`` (the default), ``none``, or names joined by commas.

Standard library only: this runs before anything is installed, and in under a second when all is up.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

#: Name, password and prefix of everything that the tests own in a database server.
ROLE = "celeriac"

START_SECONDS = 60.0


class Service(NamedTuple):
    """A server: where it answers, how to tell that it is the one, how to get and start it."""

    name: str
    port: int
    #: sent on connecting; empty where the server speaks first
    hello: bytes
    #: whether the first bytes of the reply are this server's
    known: Callable[[bytes], bool]
    #: the program whose presence says that it is installed (Debian keeps some outside of PATH)
    program: str
    package: str
    #: the name its start script has
    unit: str


SERVICES = {
    service.name: service
    for service in (
        Service(
            "redis",
            6379,
            b"PING\r\n",
            # An error is an answer too: a server that wants a password is there; one that still loads is not yet.
            lambda reply: reply[:1] in (b"+", b"-") and not reply.startswith(b"-LOADING"),
            "redis-server",
            "redis-server",
            "redis-server",
        ),
        Service(
            "rabbitmq",
            5672,
            b"AMQP\x00\x00\x09\x01",
            lambda reply: reply[:1] == b"\x01",
            "rabbitmq-server",
            "rabbitmq-server",
            "rabbitmq-server",
        ),
        # An SSLRequest: answered by one letter before any log-in.
        Service(
            "postgres",
            5432,
            b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
            lambda reply: reply in (b"S", b"N"),
            "pg_ctlcluster",
            "postgresql",
            "postgresql",
        ),
        # Greets with its protocol version, 10, after a four-byte packet header.
        Service("mariadb", 3306, b"", lambda reply: reply[4:5] == b"\n", "mariadbd", "mariadb-server", "mariadb"),
    )
}


def wanted() -> list[Service]:
    """The services that ``SERVICES`` asks for.

    Raises:
        SystemExit: it names one that does not exist.
    """
    choice = os.environ.get("SERVICES", "all") or "all"
    if choice in ("all", "none"):
        return list(SERVICES.values()) if choice == "all" else []
    names = [name.strip() for name in choice.split(",")]
    if unknown := [name for name in names if name not in SERVICES]:
        raise SystemExit(f"SERVICES names {', '.join(unknown)}; known are {', '.join(SERVICES)}, or all, or none")
    return [SERVICES[name] for name in names]


def answers(service: Service, *, port: int | None = None, timeout: float = 2.0) -> bool:
    """Whether this server, and not merely an open port, is at its loopback address."""
    try:
        with socket.create_connection(("127.0.0.1", port or service.port), timeout=timeout) as connection:
            connection.sendall(service.hello)
            return service.known(connection.recv(64))
    except OSError:
        return False


def is_installed(service: Service) -> bool:
    """Whether its program is on this machine."""
    return shutil.which(service.program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin") is not None


def commands_for(missing: list[Service]) -> list[list[str]]:
    """What has to be run, as root, until all of ``missing`` answer."""
    commands: list[list[str]] = []
    if packages := [service.package for service in missing if not is_installed(service)]:
        commands.append(["apt-get", "update", "-qq"])
        commands.append(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages])
    # Containers forbid packages to start what they install, so each is started here, which is harmless when it runs.
    commands.extend(["service", service.unit, "start"] for service in missing)
    return commands


def bring_up(missing: list[Service]) -> None:
    """Start, and where needed install, the missing servers.

    Raises:
        SystemExit: not root, not Debian, a command failed, or a server did not come up; says what to do.
    """
    commands = commands_for(missing)
    names = ", ".join(service.name for service in missing)
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        lines = "\n".join(f"    sudo {' '.join(command)}" for command in commands)
        raise SystemExit(f"Not answering on loopback: {names}. Run\n{lines}\nor leave their tests out: SERVICES=none.")
    for command in commands:
        print("services:", " ".join(command), flush=True)
        # With its output in a file: a daemon that inherits a pipe would keep its reader waiting for ever.
        log = Path(tempfile.gettempdir()) / f"celeriac-services-{os.getpid()}.log"
        with log.open("wb") as output:
            ended = subprocess.run(
                command,
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if ended.returncode:
            raise SystemExit(f"services: that failed with status {ended.returncode}; see {log}")
        log.unlink()
    deadline = time.monotonic() + START_SECONDS
    while still := [service for service in missing if not answers(service)]:
        if time.monotonic() > deadline:
            raise SystemExit(f"services: started, but not answering: {', '.join(service.name for service in still)}")
        time.sleep(0.2)


def succeeds(command: list[str], **environment: str) -> bool:
    """Run a client program quietly; whether it is there and was content."""
    if shutil.which(command[0]) is None:
        return False
    ended = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, check=False)
    return ended.returncode == 0


def ensure_postgres_role() -> bool:
    """Let the tests log in to PostgreSQL: a role that may create databases."""
    log_in = ["psql", "-h", "127.0.0.1", "-U", ROLE, "-d", "postgres", "-c", "SELECT 1"]
    if succeeds(log_in, PGPASSWORD=ROLE):
        return True
    create = f"CREATE ROLE {ROLE} LOGIN CREATEDB PASSWORD '{ROLE}'"
    return succeeds(["runuser", "-u", "postgres", "--", "psql", "-d", "postgres", "-c", create])


def ensure_mariadb_role() -> bool:
    """Let the tests log in to MariaDB: an account that owns every database named ``celeriac...``."""
    log_in = ["mariadb", "-h", "127.0.0.1", f"-u{ROLE}", f"-p{ROLE}", "-e", "SELECT 1"]
    if succeeds(log_in):
        return True
    accounts = [f"'{ROLE}'@'{host}'" for host in ("localhost", "127.0.0.1")]
    create = "".join(
        f"CREATE USER IF NOT EXISTS {account} IDENTIFIED BY '{ROLE}'; GRANT ALL ON `{ROLE}%`.* TO {account};"
        for account in accounts
    )
    return succeeds(["mariadb", "-e", create])


ROLES = {"postgres": ensure_postgres_role, "mariadb": ensure_mariadb_role}


def main() -> None:
    """Bring up what is wanted and missing."""
    services = wanted()
    if missing := [service for service in services if not answers(service)]:
        bring_up(missing)
    for service in services:
        if service.name in ROLES and not ROLES[service.name]():
            raise SystemExit(
                f"services: {service.name} runs, but lets nobody in as {ROLE!r} with password {ROLE!r}. "
                f"Run this as root once, or leave out its tests with SERVICES=none."
            )


if __name__ == "__main__":
    main()
