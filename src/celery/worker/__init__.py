"""The worker: one brain per node, in batches."""
