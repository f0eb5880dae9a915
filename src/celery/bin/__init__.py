"""The command line: ``celery.bin.celery`` is the umbrella, every command has a file of its own."""
