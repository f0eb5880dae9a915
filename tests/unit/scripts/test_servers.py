"""The house's own machinery: corners of shared servers, and servers that may be broken."""

import os
import signal
import socket
import subprocess
import urllib.parse

import pytest
import services
import tenancy


def port_of(url: str) -> int:
    return urllib.parse.urlsplit(url).port


def test_a_redis_database_is_claimed_by_one_at_a_time(redis_url):
    with tenancy.redis_database() as other, tenancy.redis_database() as third:
        assert len({redis_url, other, third}) == 3


def test_a_redis_database_with_data_of_a_stranger_is_let_alone(redis_url):
    with tenancy.redis_database() as url:
        number = int(url.rpartition("/")[2])
    tenancy.redis_commands(number, "SET precious 1")
    try:
        with tenancy.redis_database() as other:
            assert other != url
        assert tenancy.redis_commands(number, "EXISTS precious") == [":1"]
    finally:
        tenancy.redis_commands(number, "DEL precious")


def test_redis_url_is_empty_at_the_start_of_each_test(redis_url):
    number = int(redis_url.rpartition("/")[2])
    assert tenancy.redis_commands(number, "DBSIZE") == [":0"]
    tenancy.redis_commands(number, "SET left behind")


@pytest.mark.parametrize(
    "fixture",
    [pytest.param(f"{server}_url", marks=pytest.mark.needs(server)) for server in ("rabbitmq", "postgres", "mariadb")],
)
def test_every_process_has_a_corner_of_its_own(fixture, request):
    assert "celeriac" in urllib.parse.urlsplit(request.getfixturevalue(fixture)).path


def test_a_private_redis_keeps_port_and_data_when_it_is_killed(private_redis):
    server = private_redis()
    url = server.url
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(b"SET kept 1\r\n")
        assert connection.recv(16) == b"+OK\r\n"
    server.kill()
    assert not services.answers(services.SERVICES["redis"], port=port_of(url))
    server.start()
    assert server.url == url
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(b"EXISTS kept\r\n")
        assert connection.recv(16) == b":1\r\n"


@pytest.mark.slow
def test_a_private_rabbitmq_restarts_on_its_port(private_rabbitmq):
    server = private_rabbitmq()
    first = server.process.pid
    server.restart()
    assert server.process.pid != first
    assert services.answers(services.SERVICES["rabbitmq"], port=server.port)
    server.kill()
    with pytest.raises(ProcessLookupError):
        os.killpg(first, signal.SIGCONT)


def test_services_refuses_a_name_that_it_does_not_know(monkeypatch):
    monkeypatch.setenv("SERVICES", "redis,kafka")
    with pytest.raises(SystemExit, match="kafka; known are redis, rabbitmq, postgres, mariadb"):
        services.wanted()


def test_a_server_that_is_not_installed_is_installed_and_then_started():
    absent = services.SERVICES["redis"]._replace(program="no-such-program", package="a-package", unit="a-unit")
    update, install, start = services.commands_for([absent])
    assert update[:2] == ["apt-get", "update"]
    assert install[:2] == ["apt-get", "install"]
    assert install[-1] == "a-package"
    assert start == ["service", "a-unit", "start"]


def test_an_open_port_is_not_yet_the_server():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        assert not any(services.answers(each, port=port, timeout=0.05) for each in services.SERVICES.values())


def test_the_reference_environment_holds_celery_and_not_ours(celery57):
    code = "import celery, importlib.metadata as m; print(celery.__version__, m.version('celery'), celery.__file__)"
    printed = subprocess.run([celery57, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert printed[:2] == ["5.7.0", "5.7.0"]
    assert ".venv-celery57" in printed[2]
