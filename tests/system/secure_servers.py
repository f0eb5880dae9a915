"""Private servers with more ways in: TLS under a certificate that nobody knows, a unix socket, a Sentinel."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from private_servers import (  # noqa: E402 - found through the line above
    PrivateRabbitMQ,
    PrivateRedis,
    PrivateServer,
    free_port,
    self_signed,
)


class SecureRabbitMQ(PrivateRabbitMQ):
    """A RabbitMQ that speaks TLS too."""

    def __init__(self, folder):
        self.certificate, key = self_signed(folder)
        port = free_port()
        self.tls_url = f"amqps://guest:guest@127.0.0.1:{port}//"
        options = {"certfile": str(self.certificate), "keyfile": str(key), "verify": "verify_none"}
        super().__init__(
            folder,
            **{"listeners.ssl.1": f"127.0.0.1:{port}"},
            **{f"ssl_options.{name}": value for name, value in options.items()},
        )


class SecureRedis(PrivateRedis):
    """A Redis that speaks TLS too, and on a unix socket."""

    def __init__(self, folder):
        self.certificate, key = self_signed(folder)
        self.tls_port = free_port()
        self.socket = folder / "redis.sock"
        super().__init__(
            folder,
            tls_port=str(self.tls_port),
            tls_cert_file=str(self.certificate),
            tls_key_file=str(key),
            tls_auth_clients="no",
            unixsocket=str(self.socket),
        )


class Sentinel(PrivateServer):
    """A Sentinel that knows a Redis as the master ``main``."""

    service = "redis"

    def __init__(self, folder, redis):
        super().__init__(folder)
        (folder / "sentinel.conf").write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {folder}\nsentinel monitor main 127.0.0.1 {redis.port} 1\n"
        )
        self.url = f"sentinel://127.0.0.1:{self.port}"

    def command(self):
        return ["redis-server", str(self.folder / "sentinel.conf"), "--sentinel"]
