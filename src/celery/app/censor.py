"""Hiding credentials: what may be printed of a setting's value (CONF-017).

Three rules, in this order. A setting whose name says that it holds a secret prints as stars. A broker address, and
any setting with "backend" in its name, prints as a URL without its password. A mapping is filtered entry by entry.
When in doubt the rules hide too much: a password in a log cannot be taken back, a hidden host name costs nothing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("MASK", "filter_hidden_settings", "is_secret", "sanitize_url")

MASK = "********"
UNPARSABLE = "<unparsable url>"

_SECRET_NAME = re.compile("API|TOKEN|KEY|SECRET|PASS|PROFANITIES_LIST|SIGNATURE|DATABASE|BEAT_DBURI", re.IGNORECASE)
_BROKER_ADDRESSES = frozenset({"broker_url", "broker_read_url", "broker_write_url"})
# A semicolon separates servers only where another URL follows it; elsewhere it may be part of a password.
_SERVER_BREAK = re.compile(r";(?=[A-Za-z][A-Za-z0-9+.\-]*://)")
# Azure connection strings and URL queries name their secrets: AccountKey=..., SharedAccessSignature=..., password=...
_NAMED_SECRET = re.compile(r"([A-Za-z_]*(?:key|secret|signature|token|pass\w*)=)[^;&]+", re.IGNORECASE)


def is_secret(name: str) -> bool:
    """Tell whether a setting's name says that its value must not be shown."""
    return _SECRET_NAME.search(name) is not None


def sanitize_url(url: str, mask: str = MASK) -> str:
    """Return *url* with the passwords in it replaced by *mask*.

    Understands several servers joined by semicolons, lists of Sentinel hosts and Azure connection strings. A text
    without a scheme (``memory``, ``cache``) passes unchanged; one that cannot be a URL becomes ``<unparsable url>``.
    """
    return ";".join(_sanitize_server(server, mask) for server in _SERVER_BREAK.split(url))


def _sanitize_server(url: str, mask: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    end = next((i for i, char in enumerate(rest) if char in "/?#"), len(rest))
    if "@" not in rest[:end] and _is_cut_password(rest[:end], rest[end:]):
        end = len(rest)
    userinfo, at, hosts = rest[:end].rpartition("@")
    if hosts.count("[") != hosts.count("]"):
        return UNPARSABLE
    user, colon, _ = userinfo.partition(":")
    credentials = f"{user}{colon}{mask if colon else ''}{at}"
    tail = _NAMED_SECRET.sub(lambda found: found[1] + mask, hosts + rest[end:])
    return f"{scheme}://{credentials}{tail}"


def _is_cut_password(authority: str, rest: str) -> bool:
    """Tell whether *authority* ended early, at a slash, hash or question mark that nobody escaped in a password."""
    _, colon, port = authority.rpartition(":")
    return bool(colon) and "@" in rest and not port.isdecimal()


def filter_hidden_settings(conf: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return a copy of *conf* that may be shown: secrets as stars, addresses without passwords."""
    return {key: _visible(key, value) for key, value in conf.items()}


def _visible(key: Any, value: Any) -> Any:
    # dict and not Mapping: values of settings are plain data, and asking an ABC would import it here.
    if isinstance(value, dict):
        return filter_hidden_settings(value)
    if not isinstance(key, str):
        return value
    if is_secret(key):
        return MASK
    if key.lower() in _BROKER_ADDRESSES or "backend" in key.lower():
        return _visible_address(value)
    return value


def _visible_address(value: Any) -> Any:
    if isinstance(value, str):
        return sanitize_url(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_visible_address(item) for item in value)
    return value
