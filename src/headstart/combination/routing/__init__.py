"""Routing: merges with parts that stay apart, a task's or an input's own. A file here is a method; `merge` runs it."""
