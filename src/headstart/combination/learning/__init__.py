"""Learning: merges whose shares or settings are learned from rows. A file here is a method; `merge` runs it."""
