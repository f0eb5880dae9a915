"""Tools for the tests of programs that use Celery (API-106 to API-108)."""
