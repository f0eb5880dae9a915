"""Pools: where attempts run (API-101..103). The contract is in `celery.concurrency.base`."""
