"""``python -m celery``, and the script ``celery``."""

from __future__ import annotations

import sys

__all__ = ("main",)


def main() -> None:
    """Run the command line and exit with its status (CLI-001)."""
    from celery.bin.celery import main as run_command

    sys.exit(run_command())


if __name__ == "__main__":
    main()
