"""Matching: merges by what each model's passes over its own rows show. A file here is a method; `merge` runs it."""
