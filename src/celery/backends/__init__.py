"""Result stores. What all of them promise, and what third parties subclass, is in `celery.backends.base`."""
