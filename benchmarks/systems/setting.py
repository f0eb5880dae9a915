"""What the driver asks of a run, from the environment."""

from __future__ import annotations

import json
import os
from typing import Any

BROKER = os.environ["BENCH_BROKER"]
#: Empty where the system has no store of results beside its broker.
BACKEND = os.environ.get("BENCH_BACKEND", "")
#: Tasks that sleep at the same time, in all processes together.
AT_ONCE = int(os.environ.get("BENCH_AT_ONCE", "500"))
CHILDREN = int(os.environ.get("BENCH_CHILDREN", "2"))
#: Settings beside the system's own, by name: Celery's, or `pool` and whatever a module reads.
OPTIONS: dict[str, Any] = json.loads(os.environ.get("BENCH_OPTIONS", "{}"))

RESULT_SECONDS = 10.0
NAP_SECONDS = 0.02
