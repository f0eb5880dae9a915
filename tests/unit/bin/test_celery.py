"""The umbrella command: global options, finding the application and the command (CLI-001..020)."""

import os
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from celery import Celery, signals
from celery.bin.base import CeleryCommand, CeleryOption
from celery.bin.celery import CommandGroup, celery


def command_line(*argv, cwd=None, **environment):
    """Run ``python -m celery`` as a shell would."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CELERY_")}
    return subprocess.run(
        [sys.executable, "-m", "celery", *argv],
        cwd=cwd,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def project(tmp_path):
    """A folder with a module ``proj`` that holds an application."""
    (tmp_path / "proj.py").write_text(
        "from celery import Celery\n"
        "application = Celery('proj', broker='memory://')\n"
        "application.conf.worker_concurrency = 3\n"
        "application.conf.redis_max_connections = 7\n",
        encoding="utf-8",
    )
    return tmp_path


# -- as a process


def test_the_version_and_the_name_of_the_series():
    ended = command_line("--version")
    assert (ended.returncode, ended.stdout) == (0, "5.7.0 (collider)\n")


def test_without_a_command_it_shows_the_help():
    ended = command_line()
    assert ended.returncode == 0
    assert "  worker " in ended.stdout


def test_an_unknown_command_is_refused_with_suggestions():
    ended = command_line("wrker")
    assert ended.returncode == 2
    assert "No such command 'wrker'." in ended.stderr
    assert "Did you mean one of these?\n    worker" in ended.stderr


def test_a_command_that_is_to_come_is_called_so():
    ended = command_line("beat")
    assert ended.returncode == 2
    assert "The command 'beat' of Celery is not in this version." in ended.stderr
    assert "Did you mean" not in ended.stderr


def test_an_application_is_found_in_the_working_directory(project):
    ended = command_line("-A", "proj", "report", cwd=project)
    assert ended.returncode == 0
    assert "redis_max_connections: 7" in ended.stdout


def test_what_is_no_application_is_refused(project):
    (project / "other.py").write_text("number = 5\n")
    ended = command_line("-A", "other:number", "report", cwd=project)
    assert ended.returncode == 2
    assert "other:number is no application but 5." in ended.stderr


def test_the_working_directory_is_changed_to_first(project):
    assert command_line("-A", "proj", "--workdir", str(project), "report").returncode == 0


def test_the_environment_names_the_application(project):
    assert "redis_max_connections: 7" in command_line("report", cwd=project, CELERY_APP="proj:application").stdout


@pytest.mark.parametrize(
    ("source", "path", "text"),
    [
        ("", "missing", "The module missing was not found."),
        ("import not_there", "broken", "No module named 'not_there'"),
        ("1 / 0", "broken", "ZeroDivisionError"),
        ("", "broken", "Module 'broken' has no application in it"),
        ("", "broken:nothing", "has no attribute 'nothing'"),
    ],
)
def test_an_application_that_cannot_be_loaded_says_why(tmp_path, source, path, text):
    (tmp_path / "broken.py").write_text(source, encoding="utf-8")
    ended = command_line("-A", path, "report", cwd=tmp_path)
    assert ended.returncode == 2
    assert "Unable to load celery application." in ended.stderr
    assert text in ended.stderr


def test_importing_the_command_line_stays_light():
    heavy = {"asyncio", "kombu", "celery.app.base", "celery.bin.worker"}
    code = f"import sys, celery.bin.celery; print(sorted(set(sys.modules) & {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# -- in this process


def test_a_global_option_behind_the_command_is_explained(invoke):
    ended = invoke("worker", "-A", "proj")
    assert ended.exit_code == 2
    assert "`-A` is an option of celery, not of celery worker" in ended.output
    assert "No such option" in ended.output


@pytest.mark.parametrize(
    ("option", "variable"),
    [
        ("--broker", "CELERY_BROKER_URL"),
        ("--result-backend", "CELERY_RESULT_BACKEND"),
        ("--loader", "CELERY_LOADER"),
        ("--config", "CELERY_CONFIG_MODULE"),
    ],
)
def test_global_options_reach_the_application_through_the_environment(invoke, monkeypatch, option, variable):
    monkeypatch.setenv(variable, "")
    invoke(option, "memory://", "settings")
    assert os.environ[variable] == "memory://"


@pytest.mark.parametrize(("value", "exported"), [("please", "true"), ("1", "true"), ("no", ""), ("", "")])
def test_a_flag_can_be_set_by_any_word_in_the_environment(invoke, monkeypatch, value, exported):
    monkeypatch.setenv("CELERY_SKIP_CHECKS", "")
    monkeypatch.setenv("SKIP_CHECKS", value)
    assert invoke("settings").exit_code == 0
    assert os.environ["CELERY_SKIP_CHECKS"] == exported


def test_skipping_checks_is_exported(invoke, monkeypatch):
    monkeypatch.setenv("CELERY_SKIP_CHECKS", "")
    invoke("--skip-checks", "settings")
    assert os.environ["CELERY_SKIP_CHECKS"] == "true"


def test_start_runs_a_command_on_the_application_and_returns_its_status(app, capsys):
    app.conf.redis_max_connections = 7
    assert app.start(["report"]) == 0
    assert "redis_max_connections: 7" in capsys.readouterr().out
    assert app.start(["no-such-command"]) == 2
    assert app.start(["--version"]) == 0


def test_worker_main_insists_on_the_worker_command(app):
    with pytest.raises(ValueError, match="worker sub-command must be specified"):
        app.worker_main(["report"])


def test_options_of_a_command_can_come_from_the_environment(app, sqlite_path):
    result = app.send_task("proj.add", (1, 2))
    assert result.id
    ended = CliRunner().invoke(celery, ["purge"], obj=app, auto_envvar_prefix="CELERY", env={"CELERY_PURGE_FORCE": "1"})
    assert ended.output == "Purged 1 message from 1 known task queue.\n"


def test_a_mistake_in_the_settings_is_told_without_a_traceback(invoke, app):
    app.conf.broker_url = "nosuchbroker://"
    ended = invoke("purge", "-f")
    assert ended.exit_code == 1
    assert "Error: No broker transport is called 'nosuchbroker'" in ended.output


class Plugins:
    """A folder on sys.path with a distribution that brings commands."""

    def __init__(self, folder):
        meta = folder / "plugin-1.0.dist-info"
        meta.mkdir()
        (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n", encoding="utf-8")
        (meta / "entry_points.txt").write_text(
            "[celery.commands]\nflower = cli_plugin:flower\nwilted = cli_plugin:nothing\n", encoding="utf-8"
        )
        (folder / "cli_plugin.py").write_text(
            "import click\n\n@click.command()\n@click.pass_context\ndef flower(ctx):\n"
            "    '''Watch.'''\n    click.echo(ctx.obj.app.main)\n",
            encoding="utf-8",
        )


def test_plug_ins_add_commands_and_a_broken_one_says_why_when_called(tmp_path, invoke, monkeypatch):
    Plugins(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "could not be loaded" in invoke("--help").output
    assert invoke("flower").output == "proj\n"
    broken = invoke("wilted", "--whatever")
    assert broken.exit_code == 1
    assert "The plug-in 'wilted' (cli_plugin:nothing) could not be loaded" in broken.output
    assert "AttributeError" in broken.output


# -- options that the application adds


@pytest.fixture
def group(app):
    """A group with one command, whose callback takes `tenant` but not `region`."""
    seen = {}

    @click.command("visit", cls=CeleryCommand)
    @click.option("--guest", cls=CeleryOption, help_group="Guests")
    @click.pass_context
    def visit(ctx, guest, tenant):
        seen.update(guest=guest, tenant=tenant)

    group = CommandGroup("celery", params=celery.params, callback=celery.callback, commands={"visit": visit})
    app.user_options["preload"].update([click.Option(("--tenant",), default="none"), click.Option(("--region",))])
    return group, seen


def test_preload_options_are_announced_and_given_to_callbacks_that_take_them(app, group):
    command, seen = group
    announced = []

    @signals.user_preload_options.connect
    def note(sender, app, options, **kwargs):
        announced.append((app.main, options))

    try:
        ended = CliRunner().invoke(command, ["visit", "--guest", "Ann", "--tenant", "acme"], obj=app)
    finally:
        signals.user_preload_options.disconnect(note)
    assert ended.exit_code == 0, ended.output
    assert announced == [("proj", {"tenant": "acme", "region": None})]
    assert seen == {"guest": "Ann", "tenant": "acme"}


def test_added_options_stand_in_the_help_beside_grouped_ones(app, group):
    command, _ = group
    text = CliRunner().invoke(command, ["visit", "--help"], obj=app).output
    assert "Guests:\n  --guest" in text
    assert "--tenant" in text


def test_two_applications_do_not_share_added_options(app, group):
    command, _ = group
    with Celery("other", set_as_current=False, broker="memory://") as other:
        assert "--tenant" not in CliRunner().invoke(command, ["visit", "--help"], obj=other).output
