"""Calls as values, and how they compose (canvas.md). Chains, groups and chords come with the canvas."""

from __future__ import annotations

from celery.canvas.signature import Signature, maybe_signature, maybe_subtask, signature, subtask

__all__ = ("Signature", "maybe_signature", "maybe_subtask", "signature", "subtask")
