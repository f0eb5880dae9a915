"""What commands are made of: values, replies, options of daemons (API-115, CLI-019, CLI-040, CLI-085)."""

import logging
from datetime import UTC, datetime

import click
import pytest
from click.testing import CliRunner

from celery.bin.base import (
    COMMA_SEPARATED_LIST,
    ISO8601,
    ISO8601_OR_FLOAT,
    JSON_ARRAY,
    JSON_OBJECT,
    LOG_LEVEL,
    CeleryDaemonCommand,
    CeleryOption,
    CLIContext,
    handle_remote_command_error,
)
from celery.exceptions import CeleryCommandException, OperationalError


@pytest.mark.parametrize(
    ("type", "text", "value"),
    [
        (COMMA_SEPARATED_LIST, "a, b,,c", ["a", "b", "c"]),
        (COMMA_SEPARATED_LIST, "", []),
        (JSON_ARRAY, '[1, "x"]', [1, "x"]),
        (JSON_OBJECT, '{"a": null}', {"a": None}),
        (ISO8601, "2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        (ISO8601_OR_FLOAT, "12.5", 12.5),
        (ISO8601_OR_FLOAT, "2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        (LOG_LEVEL, "info", logging.INFO),
        (LOG_LEVEL, "FATAL", logging.CRITICAL),
        (LOG_LEVEL, 15, 15),
    ],
)
def test_values_are_read(type, text, value):
    assert type.convert(text, None, None) == value


@pytest.mark.parametrize(
    ("type", "text"),
    [(JSON_ARRAY, "[1"), (JSON_ARRAY, "{}"), (JSON_OBJECT, "[]"), (ISO8601, "noon"), (ISO8601_OR_FLOAT, "x"),
     (LOG_LEVEL, "loud")],
)  # fmt: skip
def test_values_that_make_no_sense_are_refused(type, text):
    with pytest.raises(click.BadParameter):
        type.convert(text, None, None)


@pytest.mark.parametrize(
    ("reply", "status", "body"),
    [
        ([], "OK", "- empty -"),
        (["proj.add", "proj.mul"], "OK", "* proj.add\n* proj.mul"),
        ([{"id": 1}], "OK", '* {\n    "id": 1\n}'),
        ({"ok": "pong"}, "OK", "    pong"),
        ({"error": "unknown task"}, "ERROR", "    unknown task"),
        ({"clock": 26}, "OK", '{\n    "clock": 26\n}'),
        ("text", "OK", "text"),
    ],
)
def test_replies_of_workers_are_shown(app, reply, status, body):
    assert CLIContext(app, no_color=True, workdir=None).pretty(reply) == (status, body)


def test_there_are_no_colours_where_none_are_wanted(app):
    assert CLIContext(app, no_color=True, workdir=None).OK == "OK"
    assert CLIContext(app, no_color=False, workdir=None).OK != "OK"


def test_a_quiet_terminal_shows_no_arrows(app, capsys):
    CLIContext(app, no_color=True, workdir=None, quiet=True).say_chat("->", "w1@h: OK")
    CLIContext(app, no_color=True, workdir=None, quiet=True).say_chat("<-", "ping")
    assert capsys.readouterr().out == "w1@h: OK\n"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConnectionRefusedError("refused"), "Could not connect to the message broker."),
        (OperationalError("refused"), "Could not connect to the message broker."),
        (LookupError("refused"), "Unable to run the `inspect` command."),
    ],
)
def test_what_goes_wrong_with_workers_ends_with_status_69(error, text):
    with pytest.raises(CeleryCommandException) as told:
        handle_remote_command_error("inspect", error)
    assert told.value.exit_code == 69
    assert text in told.value.message
    assert "Reason: refused" in told.value.message


def test_wrong_usage_stays_wrong_usage():
    with pytest.raises(click.UsageError):
        handle_remote_command_error("inspect", click.UsageError("no"))


@click.command("daemon", cls=CeleryDaemonCommand)
@click.option("--colour", cls=CeleryOption, default_value_from_context="no_color")
@click.pass_context
def daemon(ctx, **options):
    click.echo(" ".join(f"{name}={value}" for name, value in sorted(options.items())))


def test_options_of_daemons_fall_back_to_the_settings_of_the_command(app):
    app.conf.update({"daemon_pidfile": "/run/d.pid", "daemon_logfile": "/var/log/d.log"})
    context = CLIContext(app, no_color=True, workdir=None)
    ended = CliRunner().invoke(daemon, ["--logfile", "mine.log", "--uid", "nobody"], obj=context)
    assert ended.output.split() == [
        "colour=True", "executable=None", "gid=None", "logfile=mine.log", "pidfile=/run/d.pid", "uid=nobody",
        "umask=None",
    ]  # fmt: skip
