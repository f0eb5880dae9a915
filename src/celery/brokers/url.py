"""Broker and backend URLs as data.

`scheme://user:password@host:port/path?option=value`, every part but the scheme optional:

* A scheme alone is a URL too (`memory`, `rpc`): settings have always allowed that.
* User, password, host, path and options are percent-decoded; `+` stays itself.
* The path keeps its leading slash. What it means is the driver's business, and the two common meanings are
  properties: the virtual host or database (`amqp://h//` and `amqp://h` are "/", `amqp://h/v` is "v", `redis://h/1`
  is "1"), and the name of a file (`sqlite:///a.db` is "a.db", `sqlite:////a.db` is "/a.db").
* Several servers of one kind are several URLs, in a list or joined by `;`. A later one may leave the scheme out.

A password never leaves this module in a text for people: use `mask` wherever a URL is shown.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple, cast

from celery.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from collections.abc import Iterable

_SECRET_OPTION = re.compile(r"([?&][^=&]*(?:password|passwd|secret|token)[^=&]*=)[^&]*", re.IGNORECASE)


class BrokerURL(NamedTuple):
    """The parts of one URL, decoded. None: the URL does not say."""

    scheme: str
    user: str | None
    password: str | None
    host: str | None
    port: int | None
    #: With its leading slash; "" when there is none.
    path: str
    query: dict[str, str]

    @property
    def virtual_host(self) -> str:
        """The virtual host or database: the path without its slash, "/" when that leaves nothing.

        A URL whose path is a socket names it by the option `virtual_host` instead.
        """
        if self.scheme.endswith("socket"):
            return self.query.get("virtual_host", "/")
        return self.path[1:] or "/"

    @property
    def file(self) -> str:
        """The path as the name of a file, relative unless it begins with two slashes; "" when there is none."""
        return self.path[1:]

    def __repr__(self) -> str:
        shown = self._replace(password=None if self.password is None else "**")
        return f"BrokerURL({', '.join(f'{name}={value!r}' for name, value in zip(self._fields, shown, strict=True))})"


def parse(url: str) -> BrokerURL:
    """Take one URL apart.

    Raises:
        ImproperlyConfigured: It is no URL; the text shows it without the password.
    """
    scheme, found, rest = url.strip().partition("://")
    if not scheme or not re.fullmatch(r"[\w.+:-]+", scheme):
        raise ImproperlyConfigured(f"{mask(url)!r} is not a URL: expected scheme://user:password@host:port/path")
    rest, _, options = rest.partition("?")
    authority, slash, path = rest.partition("/")
    account, _, address = authority.rpartition("@")
    user, colon, password = account.partition(":")
    host, port = _address(address, url)
    return BrokerURL(
        scheme=scheme.lower() if found else scheme,
        user=_decoded(user) or None,
        password=_decoded(password) if colon else None,
        host=_decoded(host) or None,
        port=port,
        path=slash + _decoded(path),
        query=dict(_option(text) for text in options.split("&") if text),
    )


def split(urls: str | Iterable[str]) -> list[str]:
    """The single URLs of a setting: a list, or one text with `;` between them (failover, Sentinel)."""
    texts = [urls] if isinstance(urls, str) else urls
    parts = [part.strip() for text in texts for part in text.split(";") if part.strip()]
    scheme, found, _ = parts[0].partition("://") if parts else ("", "", "")
    return [f"{scheme}://{part}" if found and "://" not in part else part for part in parts]


def mask(url: str) -> str:
    """The URL (or several, joined by `;`) for people: passwords and secret options read `**`. Never raises.

    Where a password that should have been percent-encoded makes the URL ambiguous, it hides too much.
    """
    return ";".join(_masked(part) for part in re.split(r";(?=[\w.+-]+://)", url))


def _masked(url: str) -> str:
    scheme, found, rest = url.partition("://")
    if not found:
        return url
    place, question, options = rest.partition("?")
    authority, slash, path = place.partition("/")
    if "@" not in authority:  # a bare slash in the password has moved the "@" into the path
        authority, slash, path = place, "", ""
    account, at, address = authority.rpartition("@")
    user, colon, _ = account.partition(":")
    shown = f"{user}:**" if colon else user
    return f"{scheme}://{shown}{at}{address}{slash}{path}" + _SECRET_OPTION.sub(r"\1**", question + options)


def _address(address: str, url: str) -> tuple[str, int | None]:
    """Host and port; an IPv6 address stands in brackets."""
    if address.startswith("["):
        host, closed, tail = address[1:].partition("]")
        if not closed:
            raise ImproperlyConfigured(f"{mask(url)!r}: the bracket of the IPv6 address is not closed")
    else:
        host, colon, tail = address.partition(":")
        tail = colon + tail
    if tail in {"", ":"}:
        return host, None
    digits = tail[1:]
    if not (tail[0] == ":" and digits.isascii() and digits.isdigit() and int(digits) < 65536):
        raise ImproperlyConfigured(
            f"{mask(url)!r}: the port is not a number from 0 to 65535; "
            "percent-encode '@', ':', '/' and '?' in user and password"
        )
    return host, int(digits)


def lookup_name(host: str) -> str:
    """What to have the system look up for a host: bytes where that will do. For text Python would first load tables of
    the names in all alphabets, half a MiB.
    """
    return cast("str", host.encode()) if host.isascii() else host


def _decoded(text: str) -> str:
    if "%" not in text:
        return text
    from urllib.parse import unquote  # with what it imports a third of a MiB, which few URLs need

    return unquote(text)


def _option(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return _decoded(name), _decoded(value)
