"""Types of command line values (API-115)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from celery.utils.iso8601 import parse_iso8601
from celery.utils.log import mlevel

if TYPE_CHECKING:
    from datetime import datetime

    ParamType = click.ParamType[Any]
    Choice = click.Choice[str]
else:
    # Before click 8.5 they take no type argument.
    from click import Choice, ParamType

__all__ = (
    "COMMA_SEPARATED_LIST",
    "ISO8601",
    "ISO8601_OR_FLOAT",
    "JSON_ARRAY",
    "JSON_OBJECT",
    "LOG_LEVEL",
    "CommaSeparatedList",
    "ISO8601DateTime",
    "ISO8601DateTimeOrFloat",
    "JsonArray",
    "JsonObject",
    "LogLevel",
)


class CommaSeparatedList(ParamType):
    """Text with commas, as a list; empty parts are left out."""

    name = "comma separated list"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        """Split."""
        del param, ctx
        parts = value.split(",") if isinstance(value, str) else value
        return [part for part in map(str.strip, parts) if part]


class _Json(ParamType):
    kind: type
    kind_name: str

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse."""
        if isinstance(value, self.kind):
            return value
        try:
            parsed = json.loads(value)
        except ValueError as exc:
            self.fail(str(exc), param, ctx)
        if not isinstance(parsed, self.kind):
            self.fail(f"{value!r} is not a JSON {self.kind_name}", param, ctx)
        return parsed


class JsonArray(_Json):
    """A JSON array, as a list."""

    name = "json array"
    kind, kind_name = list, "array"


class JsonObject(_Json):
    """A JSON object, as a dict."""

    name = "json object"
    kind, kind_name = dict, "object"


class ISO8601DateTime(ParamType):
    """A date and time in ISO 8601."""

    name = "iso-86091"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Parse."""
        try:
            return parse_iso8601(value)
        except (TypeError, ValueError) as exc:
            self.fail(str(exc), param, ctx)


class ISO8601DateTimeOrFloat(ParamType):
    """A date and time in ISO 8601, or a number of seconds."""

    name = "iso-86091 or float"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime | float:
        """Parse."""
        try:
            return float(value)
        except ValueError:
            return ISO8601.convert(value, param, ctx)


class LogLevel(Choice):
    """The name of a log level in any case, as its number."""

    def __init__(self) -> None:
        super().__init__(("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "FATAL"))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Look up; a number is one already."""
        if isinstance(value, int):
            return value
        return mlevel(super().convert(value.upper(), param, ctx))


COMMA_SEPARATED_LIST = CommaSeparatedList()
JSON_ARRAY = JsonArray()
JSON_OBJECT = JsonObject()
ISO8601 = ISO8601DateTime()
ISO8601_OR_FLOAT = ISO8601DateTimeOrFloat()
LOG_LEVEL = LogLevel()
