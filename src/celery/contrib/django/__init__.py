"""For projects of Django."""
