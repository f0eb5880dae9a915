"""The protocol: data to data, with no I/O, no clock and no application."""
