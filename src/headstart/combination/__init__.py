"""Combination: use several systems, by their predictions or by their weights. Each folder here is one kind."""
