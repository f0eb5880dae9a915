"""RabbitMQ URLs and TLS options as data."""

from __future__ import annotations

import ssl

import pytest

from celery.brokers.amqp.address import read, server_name, tls_context
from celery.exceptions import ImproperlyConfigured


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("amqp://", ("localhost", 5672, "guest", "guest", "/")),
        ("amqp://h//", ("h", 5672, "guest", "guest", "/")),
        ("pyamqp://u:p%40ss@h:1234/v%2Fhost", ("h", 1234, "u", "p@ss", "v/host")),
        ("amqps://h/v", ("h", 5671, "guest", "guest", "v")),
    ],
)
def test_every_part_of_a_url_has_a_default(url, parts):
    address = read(url, {})
    assert (address.host, address.port, address.user, address.password, address.vhost) == parts
    assert (address.tls is None) is not url.startswith("amqps")


def test_options_are_taken_over_and_the_password_is_never_shown():
    address = read("amqp://u:secret@h", {"heartbeat": 30, "connect_timeout": 1.5, "login_method": "amqplain"})
    assert (address.heartbeat, address.connect_timeout, address.mechanism) == (30, 1.5, "AMQPLAIN")
    assert "secret" not in address.url
    assert "secret" not in str(address.lost("x"))
    assert read("amqp://h", {}, name="w1@host").name == "w1@host"


def test_certificates_and_names_are_checked_unless_told_otherwise():
    strict = tls_context(read("amqps://h", {}))
    assert (strict.verify_mode, strict.check_hostname) == (ssl.CERT_REQUIRED, True)
    for lax in (ssl.CERT_NONE, "none", "CERT_NONE"):
        context = tls_context(read("amqp://h", {"ssl": {"cert_reqs": lax}}))
        assert (context.verify_mode, context.check_hostname) == (ssl.CERT_NONE, False)
    named = read("amqp://h", {"ssl": {"server_hostname": "other", "check_hostname": False}})
    assert server_name(named) == "other"
    assert tls_context(named).check_hostname is False


@pytest.mark.parametrize("wrong", [{"ca_certs": "/nowhere.pem"}, {"cert_reqs": "maybe"}, {"ciphers": "none such"}])
def test_tls_options_that_cannot_be_used_are_an_error_with_the_url(wrong):
    with pytest.raises(ImproperlyConfigured, match="amqp://h.*broker_use_ssl"):
        tls_context(read("amqp://h", {"ssl": wrong}))


def test_a_misspelt_tls_option_is_named_with_those_that_exist():
    with pytest.raises(ImproperlyConfigured, match="ssl_ca_certs; for RabbitMQ it takes .*ca_certs"):
        read("amqp://h", {"ssl": {"ssl_ca_certs": "x"}})
