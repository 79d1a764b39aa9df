"""Trimming: which entries of the models' changes count. A file here is a method; `merge` runs it."""
