"""What may be printed of a setting (CONF-017)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery.app.censor import MASK, filter_hidden_settings, sanitize_url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://u:p@h:6379/0", f"redis://u:{MASK}@h:6379/0"),
        ("redis://:p@h", f"redis://:{MASK}@h"),
        ("redis://h/0", "redis://h/0"),
        ("amqp://u@h//", "amqp://u@h//"),
        ("memory", "memory"),
        ("db+postgresql://u:p@h/db", f"db+postgresql://u:{MASK}@h/db"),
        ("sentinel://:p@a:1/0;sentinel://:q@b:2/0", f"sentinel://:{MASK}@a:1/0;sentinel://:{MASK}@b:2/0"),
        ("sentinel://:p@a:1;:q@b:2/0", f"sentinel://:{MASK}@b:2/0"),
        ("redis://:a;b@h", f"redis://:{MASK}@h"),
        ("redis://:a/b@h/0", f"redis://:{MASK}@h/0"),
        ("redis://:a@b@h/0", f"redis://:{MASK}@h/0"),
        ("amqp://h:5672/v@x", "amqp://h:5672/v@x"),
        (
            "azureblockblob://DefaultEndpointsProtocol=https;AccountName=a;AccountKey=zz==;EndpointSuffix=s",
            f"azureblockblob://DefaultEndpointsProtocol=https;AccountName=a;AccountKey={MASK};EndpointSuffix=s",
        ),
        ("mongodb://h/db?password=p&w=1", f"mongodb://h/db?password={MASK}&w=1"),
        ("http://[bad", "<unparsable url>"),
    ],
)
def test_a_url_is_shown_without_its_password(url, shown):
    assert sanitize_url(url) == shown


@given(st.text(min_size=8).filter(lambda text: "://" not in text))
def test_no_password_survives_whatever_is_in_it(password):
    secret = f"~{password}~"
    assert secret not in sanitize_url(f"redis://user:{secret}@host:6379/0")


def test_settings_are_hidden_by_name_by_address_and_in_nested_mappings():
    shown = filter_hidden_settings({
        "a_key": 1,
        "task_default_routing_key": "k",
        "DATABASE_URL": "x",
        "broker_read_url": ["redis://:p@a", "redis://:p@b"],
        "result_backend": "redis://:p@h",
        "cache_backend": None,
        "n": {"password": "p", "plain": 1},
        "plain": "redis",
        3: 4,
    })  # fmt: skip
    assert shown == {
        "a_key": MASK,
        "task_default_routing_key": MASK,
        "DATABASE_URL": MASK,
        "broker_read_url": [f"redis://:{MASK}@a", f"redis://:{MASK}@b"],
        "result_backend": f"redis://:{MASK}@h",
        "cache_backend": None,
        "n": {"password": MASK, "plain": 1},
        "plain": "redis",
        3: 4,
    }
