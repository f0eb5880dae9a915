"""URLs and options as an address (ROUTE-031, ROUTE-032, wire.md 3.9)."""

from __future__ import annotations

import ssl

import pytest

from celery.brokers.redis.address import read, tls_context
from celery.exceptions import ImproperlyConfigured


def test_a_full_url():
    where = read("redis://us%40er:pa%3Ass@host:6380/3?socket_timeout=5&client_name=me", {})
    assert (where.host, where.port, where.database) == ("host", 6380, 3)
    assert where.credentials() == ("us@er", "pa:ss")
    assert (where.timeout, where.client_name, where.tls) == (5.0, "me", None)
    assert "pa" not in where.url


def test_an_empty_url_is_the_local_server():
    where = read("redis://", {})
    assert (where.host, where.port, where.database, where.credentials()) == ("localhost", 6379, 0, ())


def test_a_password_without_a_user():
    assert read("redis://:secret@host", {}).credentials() == ("secret",)


def test_options_fill_in_and_the_url_wins():
    options = {"socket_timeout": 3, "client_name": "option", "connect_timeout": 7, "db": 2}
    options |= {"username": "u", "password": "p"}
    where = read("redis://h?client_name=url", options)
    assert (where.timeout, where.client_name, where.connect_timeout, where.database) == (3.0, "url", 7.0, 2)
    assert where.credentials() == ("u", "p")
    assert read("redis://h", {**options, "socket_connect_timeout": 1}).connect_timeout == 1.0


def test_a_unix_socket():
    where = read("redis+socket:///run/redis.sock?virtual_host=4", {})
    assert (where.path, where.database) == ("/run/redis.sock", 4)


def test_sentinels_are_all_listed():
    where = read("sentinel://h1:1/2;sentinel://:secret@h2:2/2", {"master_name": "m", "min_other_sentinels": 1})
    assert where.sentinels == (("h1", 1), ("h2", 2))
    assert (where.master_name, where.database, where.min_other_sentinels) == ("m", 2, 1)


def test_tls_options_come_from_the_query_and_from_settings():
    where = read("rediss://host?ssl_cert_reqs=none", {"ssl": {"ssl_keyfile": "k"}})
    assert where.tls == {"ssl_cert_reqs": "none", "ssl_keyfile": "k"}
    assert tls_context(read("rediss://host?ssl_cert_reqs=CERT_NONE", {})).verify_mode == ssl.CERT_NONE
    assert tls_context(read("redis://host", {"ssl": True})).check_hostname is True


@pytest.mark.parametrize(
    ("url", "options", "names"),
    [
        ("redis://h?ssl_cert_reqs=none", {}, "rediss://"),
        ("redis://h/x", {}, "'x'"),
        ("sentinel://h", {}, "master_name"),
        ("redis://h?socket_timeout=soon", {}, "socket_timeout"),
        ("redis://h", {"credential_provider": "no.such.thing"}, "no.such.thing"),
    ],
)
def test_what_is_wrong_is_named(url, options, names):
    with pytest.raises(ImproperlyConfigured, match=names):
        read(url, options)


@pytest.mark.parametrize("query", ["ssl_cert_reqs=maybe", "ssl_ca_certs=/nowhere"])
def test_what_is_wrong_with_tls_is_named(query):
    with pytest.raises(ImproperlyConfigured, match="ssl_|TLS"):
        tls_context(read(f"rediss://h?{query}", {}))


def test_a_credential_provider_is_asked_each_time():
    class Provider:
        asked = 0

        def get_credentials(self):
            self.asked += 1
            return "user", f"token-{self.asked}"

    where = read("redis://h", {"credential_provider": Provider()})
    assert [where.credentials(), where.credentials()] == [("user", "token-1"), ("user", "token-2")]
