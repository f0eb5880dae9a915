"""Where the broker is: URLs, the old settings, and the embedded file (ROUTE-029, ROUTE-038, SET-040)."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from celery import Celery
from celery.app.brokers import broker_urls, driver, embedded_file, is_embedded
from celery.exceptions import ImproperlyConfigured

APPLICATION = """
from celery import Celery
app = Celery("proj", set_as_current=False)

@app.task(name="add", shared=False)
def add(x, y):
    return x + y
"""

#: Run elsewhere: where is the file, and what waits in it?
ASK = """
import sys
from {module} import app
from celery.app.brokers import embedded_file
print(embedded_file(app))
print(app.publisher.run(lambda sender: sender.length("celery")))
"""


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in ("CELERY_HOME", "CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL"):
        monkeypatch.delenv(name, raising=False)


def made(**settings):
    app = Celery("w", set_as_current=False)
    app.conf.update(settings)
    return app


# -- URLs


@pytest.mark.parametrize(
    ("settings", "urls"),
    [
        ({"broker_url": "redis://h/1"}, ["redis://h/1"]),
        ({"broker_url": "memory"}, ["memory://"]),
        ({"broker_url": "redis://a;redis://b"}, ["redis://a", "redis://b"]),
        ({"broker_url": "redis://a;b"}, ["redis://a", "redis://b"]),
        ({"broker_url": ["amqp://a", "amqp://b"]}, ["amqp://a", "amqp://b"]),
        ({"broker_url": "sentinel://a:1;sentinel://b:2"}, ["sentinel://a:1;sentinel://b:2"]),
        ({"broker_url": ["sentinel://a:1;b:2", "redis://c"]}, ["sentinel://a:1;b:2", "redis://c"]),
        ({"broker_url": "localhost:6379/1", "broker_transport": "redis"}, ["redis://localhost:6379/1"]),
        ({"broker_url": "redis://r", "broker_write_url": "redis://w"}, ["redis://w"]),
        ({"broker_url": "h:5672/v"}, ["amqp://h:5672/v"]),
        ({"broker_host": "h"}, ["amqp://h/"]),
        ({"broker_user": "u"}, ["amqp://u@localhost/"]),
        (
            {
                "broker_host": "h",
                "broker_port": 1,
                "broker_user": "u@x",
                "broker_password": "p/w",
                "broker_vhost": "/v",
            },
            ["amqp://u%40x:p%2Fw@h:1/%2Fv"],
        ),
        ({"broker_transport": "redis", "broker_host": "h", "broker_vhost": "2"}, ["redis://h/2"]),
    ],
)
def test_settings_name_the_brokers(settings, urls):
    app = made(**settings)
    assert broker_urls(app) == urls
    assert not is_embedded(app)


def test_reading_and_writing_may_be_apart():
    app = made(broker_url="redis://both", broker_read_url="redis://read")
    assert (broker_urls(app), broker_urls(app, read=True)) == (["redis://both"], ["redis://read"])


def test_the_environment_names_the_broker(monkeypatch):
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://env")
    assert broker_urls(made()) == ["redis://env"]
    assert not is_embedded(made())


def test_an_unknown_transport_is_told_without_the_password():
    with pytest.raises(ImproperlyConfigured, match=r"'carrier-pigeon'.*carrier-pigeon://u:\*\*@h.*Known: amqp,.*redis"):
        made(broker_url="carrier-pigeon://u:secret@h").send_task("t")


def test_a_transport_that_is_to_come_is_called_so():
    with pytest.raises(ImproperlyConfigured, match="transport 'sqs' of Celery is not in this version"):
        made(broker_url="sqs://").send_task("t")


@pytest.mark.parametrize("url", ["redis://h:port/0", "amqp://u:p@h:99999//", 17])
def test_what_is_no_url_is_told(url):
    with pytest.raises(ImproperlyConfigured):
        made(broker_url=url).send_task("t", retry=False)


def test_a_missing_library_names_the_extra():
    code = (
        "import sys; sys.modules['hiredis'] = None\n"
        "from celery import Celery\n"
        "Celery(broker='redis://127.0.0.1').send_task('t')"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ImproperlyConfigured" in ended.stderr
    assert "celeriac[redis]" in ended.stderr


def test_drivers_plug_in_as_entry_points(tmp_path, monkeypatch):
    (tmp_path / "plugin-1.dist-info").mkdir()
    (tmp_path / "plugin-1.dist-info" / "entry_points.txt").write_text(
        "[celery.brokers]\nplugged = celery.brokers.memory\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert driver("plugged://x").__name__ == "celery.brokers.memory"


# -- nothing configured


@pytest.fixture(params=["proj_module", "proj_package.tasks"])
def project(request, tmp_path, monkeypatch):
    """A module, or a package, in a folder of its own; imported here, with another working directory."""
    source, elsewhere = tmp_path / "src", tmp_path / "elsewhere"
    source.mkdir()
    elsewhere.mkdir()
    package, _, module = request.param.rpartition(".")
    folder = source / package
    folder.mkdir(exist_ok=True)
    if package:
        (folder / "__init__.py").touch()
    (folder / f"{module}.py").write_text(APPLICATION)
    monkeypatch.syspath_prepend(str(source))
    monkeypatch.chdir(elsewhere)
    __import__(request.param)
    yield request.param, source, sys.modules[request.param]
    sys.modules[request.param].app.close()
    for name in {request.param, package}:
        sys.modules.pop(name, None)


def test_every_process_finds_the_file_beside_the_application(project, tmp_path):
    name, source, module = project
    module.add.delay(1, 2)
    asked = subprocess.run(
        [sys.executable, "-c", ASK.format(module=name)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.stdout.split() == [str(source / "celery.sqlite"), "1"], asked.stderr


def test_broker_and_results_are_one_file_told_once(project, caplog):
    _, source, module = project
    with caplog.at_level(logging.INFO):
        module.add.delay(1, 2)
        module.add.delay(1, 2)
    told = [record for record in caplog.records if str(source / "celery.sqlite") in record.getMessage()]
    assert len(told) == 1
    assert told[0].name == "celery.app"
    assert type(module.app.backend).__name__ == "SQLiteBackend"
    assert module.app.AsyncResult("i").state == "PENDING"


def test_the_file_may_be_elsewhere(tmp_path, monkeypatch):
    app = made()
    monkeypatch.setenv("CELERY_HOME", str(tmp_path / "home"))
    assert embedded_file(app) == str(tmp_path / "home" / "celery.sqlite")
    app.conf.embedded_path = str(tmp_path / "a b%.db")
    assert embedded_file(app) == str(tmp_path / "a b%.db")
    app.send_task("t")
    assert (tmp_path / "a b%.db").exists()
    assert app.AsyncResult("i").state == "PENDING"
    app.close()
