"""Programs: what a person at a terminal sees of them, and how signals reach them."""
