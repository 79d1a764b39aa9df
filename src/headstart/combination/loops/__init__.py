"""Loops: merges that also train, in turns. A file here is a method; `merge` runs it."""
