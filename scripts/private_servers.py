"""Servers of one's own, to be stopped, filled and killed: Redis and RabbitMQ on a free port, in a folder.

The shared servers are for tests that leave them as they are; everything rougher gets one of these.
A server is a process group that we started and end by its id. Port and folder stay the same across
restarts, as they would for a real one.

RabbitMQ is an Erlang node: it takes some 5 s to start, and finds others through epmd, the port mapper that the shared
RabbitMQ runs; its name holds its port, so any number of them get along.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING

from services import SERVICES, answers

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

#: For a machine with much else to do: an hour of work is not to end because RabbitMQ took its time.
START_SECONDS = 120.0
STOP_SECONDS = 20.0


def free_port() -> int:
    """A loopback port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that is its own authority, and its key; both are written into the folder."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "1"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", *subject]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    return certificate, key


class PrivateServer:
    """One server process: start, stop, kill and restart it; usable as a context manager.

    Args:
        folder: an existing, empty folder that holds its data, its log and everything else it writes.
    """

    #: key in `services.SERVICES`
    service: str
    url: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """The program and its arguments."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Variables beside those of this process."""
        return {}

    def start(self) -> None:
        """Start it and return when it answers.

        Raises:
            RuntimeError: it ended, or did not answer in two minutes; carries the end of its log.
        """
        log = self.folder / "server.log"
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command(),
                env={**os.environ, **self.environment()},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        # Twice: a Redis that loads several files can be heard between two of them.
        while not all(answers(SERVICES[self.service], port=self.port) for _ in range(2)):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"a private {self.service} did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it in good order (SIGTERM); killed when it takes more than 20 s."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it on the spot (SIGKILL), as a crash would."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop it and start it again on the same port and data."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Stop its execution (SIGSTOP): connections stay open and nobody answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None, "not started"
        os.killpg(self.process.pid, number)

    def _end(self, number: signal.Signals) -> None:
        if self.process is None:
            return
        if self.process.poll() is None:
            self._signal(number)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._signal(signal.SIGKILL)
                self.process.wait()
        self.process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()


class PrivateRedis(PrivateServer):
    """A Redis that writes every command to its append-only file, unless told otherwise.

    Args:
        folder: see `PrivateServer`.
        options: settings as in redis.conf, by name with underscores: ``maxmemory="1mb"``.
    """

    service = "redis"

    def __init__(self, folder: Path, **options: str) -> None:
        super().__init__(folder)
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.options = {"appendonly": "yes", "appendfsync": "always", "save": "", **options}

    def command(self) -> list[str]:
        """The program and its arguments."""
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        for name, value in self.options.items():
            command += [f"--{name.replace('_', '-')}", value]
        return command


class PrivateRabbitMQ(PrivateServer):
    """A RabbitMQ node with nothing but the defaults: no plugins, no configuration of the machine.

    Args:
        folder: see `PrivateServer`.
        options: settings by their names in rabbitmq.conf, dots and all.
    """

    service = "rabbitmq"

    def __init__(self, folder: Path, **options: str) -> None:
        super().__init__(folder)
        (folder / "rabbitmq.conf").write_text("".join(f"{name} = {value}\n" for name, value in options.items()))
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}//"
        self.node = f"celeriac-{self.port}@localhost"
        self.distribution_port = free_port()
        (folder / "plugins").write_text("[].")

    def command(self) -> list[str]:
        """The server's own start script: the one in Debian's PATH changes the user and writes to its system log."""
        places = f"/usr/lib/rabbitmq/bin:{os.environ.get('PATH', '')}:/usr/sbin"
        return [shutil.which("rabbitmq-server", path=places) or "rabbitmq-server"]

    def ctl(self, *arguments: str) -> str:
        """Run one command of its administration; what it says.

        Raises:
            RuntimeError: it refused.
        """
        program = shutil.which("rabbitmqctl", path="/usr/lib/rabbitmq/bin:/usr/sbin") or "rabbitmqctl"
        deadline = time.monotonic() + START_SECONDS
        while True:
            ended = subprocess.run(
                [program, "-q", "-n", self.node, *arguments],
                env={**os.environ, **self.environment()},
                capture_output=True,
                text=True,
                check=False,
            )
            # A node serves clients a moment before it lets itself be administered.
            if "requires the 'rabbit' app to be running" not in ended.stderr or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        if ended.returncode:
            raise RuntimeError(f"rabbitmqctl {' '.join(arguments)} failed: {(ended.stderr or ended.stdout).strip()}")
        return ended.stdout

    def environment(self) -> dict[str, str]:
        """Names, ports and folders of this node; one scheduler that does not spin, to leave the cores to the test."""
        absent = str(self.folder / "absent")
        return {
            "HOME": str(self.folder),
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self.distribution_port),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": absent,
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none",
        }
