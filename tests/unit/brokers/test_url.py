from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery.brokers.url import BrokerURL, mask, parse, split
from celery.exceptions import ImproperlyConfigured


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("amqp://", "/"),
        ("amqp://h", "/"),
        ("amqp://h/", "/"),
        ("amqp://u:p@h:5672//", "/"),
        ("amqp://h/shop", "shop"),
        ("amqp://h//shop", "/shop"),
        ("amqp://h/%2Fshop", "/shop"),
        ("redis://h/1", "1"),
        ("redis://h", "/"),
        ("redis+socket:///run/redis.sock?virtual_host=3", "3"),
        ("redis+socket:///run/redis.sock", "/"),
    ],
)
def test_the_virtual_host_is_the_path_without_its_slash(text, host):
    assert parse(text).virtual_host == host


def test_every_part_is_decoded():
    assert parse("amqps://us%40er:p%2Fa%3Ass@broker.example:5671/v%20h?heartbeat=10&name=a%26b") == BrokerURL(
        "amqps", "us@er", "p/a:ss", "broker.example", 5671, "/v h", {"heartbeat": "10", "name": "a&b"}
    )


@pytest.mark.parametrize(
    ("text", "file"),
    [("sqlite:///a.db", "a.db"), ("sqlite:////var/a.db", "/var/a.db"), ("sqlite://", "")],
)
def test_a_file_is_relative_unless_it_has_two_slashes(text, file):
    assert parse(text).file == file


def test_what_a_url_leaves_out_is_none():
    assert parse("memory://") == BrokerURL("memory", None, None, None, None, "", {})
    assert parse("rpc") == BrokerURL("rpc", None, None, None, None, "", {})


def test_a_user_without_password_and_a_password_without_user():
    assert parse("amqp://me@h").user == "me"
    assert parse("amqp://me@h").password is None
    assert parse("redis://:secret@h").user is None
    assert parse("redis://:secret@h").password == "secret"


def test_an_ipv6_address_stands_in_brackets():
    url = parse("amqp://u:p@[::1]:5673/v")
    assert (url.host, url.port) == ("::1", 5673)
    assert parse("redis://[fe80::2]").host == "fe80::2"


@pytest.mark.parametrize(
    "text", ["", "://h", "amqp://u:secret@h:port/", "amqp://u:secret@h:70000", "amqp://u:secret@[::1", "a b"]
)
def test_what_is_no_url_is_refused_without_its_password(text):
    with pytest.raises(ImproperlyConfigured) as caught:
        parse(text)
    assert "secret" not in str(caught.value)


def test_a_password_with_a_bare_slash_is_explained_and_not_shown():
    with pytest.raises(ImproperlyConfigured, match="percent-encode") as caught:
        parse("redis://:12ab/secret@h:6379/0")
    assert "secret" not in str(caught.value)
    assert "12ab" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("amqp://u:p@h:5672//", "amqp://u:**@h:5672//"),
        ("redis://:p@h/0", "redis://:**@h/0"),
        ("amqp://u@h/v@x", "amqp://u@h/v@x"),
        ("amqp://u:p@h;amqp://u:q@i", "amqp://u:**@h;amqp://u:**@i"),
        ("redis+socket:///s?password=p&virtual_host=1", "redis+socket:///s?password=**&virtual_host=1"),
        ("sentinel://:a@b@h:1/0", "sentinel://:**@h:1/0"),
        ("redis://:12/34@h/0", "redis://:**@h/0"),
        ("amqp://u:p;q@h", "amqp://u:**@h"),
        ("memory://", "memory://"),
        ("rpc", "rpc"),
    ],
)
def test_a_masked_url_shows_everything_but_passwords(text, shown):
    assert mask(text) == shown


@given(password=st.text(min_size=4), host=st.from_regex(r"[a-z]{1,8}", fullmatch=True))
def test_a_password_survives_parsing_and_never_shows(password, host):
    url = f"amqp://u:{quote(password, safe='')}@{host}:1/v"
    assert parse(url).password == password
    assert mask(url) == f"amqp://u:**@{host}:1/v"
    assert "password='**'" in repr(parse(url))


def test_several_servers_come_joined_or_in_a_list():
    expected = ["sentinel://h1:26379/0", "sentinel://h2:26379/0"]
    assert split("sentinel://h1:26379/0;sentinel://h2:26379/0") == expected
    assert split(expected) == expected
    assert split(";".join([*expected, ""])) == expected
    assert split("amqp://a;b//") == ["amqp://a", "amqp://b//"]
    assert split("memory") == ["memory"]
    assert split([]) == []
