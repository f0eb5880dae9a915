"""The stand-in distribution forwards what Celery's users ask for (CONF-036)."""

from __future__ import annotations

import tomllib

from celery.apps.banner import OWN_VERSION

#: Extras that Celery has under the same name.
CELERY_EXTRAS = set(
    "arangodb auth azureblockblob brotli cassandra consul cosmosdbsql couchbase couchdb django dynamodb elasticsearch "
    "eventlet gcpubsub gcs gevent librabbitmq memcache pymemcache mongodb msgpack pydantic pyro pytest redis s3 slmq "
    "solar sqlalchemy sqs tblib thread yaml zeromq zookeeper zstd".split()
)


def project(path) -> dict:
    return tomllib.loads(path.read_text())["project"]


def test_the_stand_in_forwards_every_extra_that_both_have(root):
    ours = project(root / "pyproject.toml")["optional-dependencies"]
    stand_in = project(root / "packaging/celery/pyproject.toml")["optional-dependencies"]
    assert stand_in == {name: [f"celeriac[{name}]"] for name in sorted(CELERY_EXTRAS & set(ours))}


def test_the_stand_in_has_the_version_that_the_modules_report(root):
    stand_in = project(root / "packaging/celery/pyproject.toml")
    source = (root / "src/celery/__init__.py").read_text()
    assert f'__version__ = "{stand_in["version"].partition("+")[0]}"' in source


def test_the_banner_shows_the_version_of_the_distribution(root):
    assert project(root / "pyproject.toml")["version"] == OWN_VERSION
