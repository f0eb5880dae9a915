"""What lies in `<queue>.dead`: a JSON object with message, reason and time (wire.md 6.14).

`message` is the envelope as the text it was. What is no UTF-8 is kept in base64, and `encoding` says so.
"""

from __future__ import annotations

import base64
import json
import time

from celery.brokers.base import DeadLetter
from celery.wire.sealed import UnreadableError, open_text

#: How many a queue keeps; the oldest go first.
KEPT = 10_000


def write(text: bytes, reason: str) -> bytes:
    """A dead letter from the text of an envelope, or of what should have been one."""
    try:
        entry = {"message": text.decode("utf-8")}
    except UnicodeDecodeError:
        entry = {"message": base64.b64encode(text).decode("ascii"), "encoding": "base64"}
    return json.dumps({**entry, "reason": reason, "time": time.time()}).encode("ascii")


def read(value: bytes, queue: str) -> DeadLetter:
    """A dead letter of a queue; tolerates what others put into the list."""
    try:
        entry = json.loads(value)
        text = entry["message"]
        raw = base64.b64decode(text) if entry.get("encoding") == "base64" else text.encode("utf-8", "surrogatepass")
        reason, moment = str(entry.get("reason") or ""), float(entry.get("time") or 0.0)
    except (ValueError, KeyError, TypeError, AttributeError):
        return DeadLetter(value, queue, "")
    try:
        return DeadLetter(open_text(raw).envelope, queue, reason, moment)
    except UnreadableError:
        return DeadLetter(raw, queue, reason, moment)
