"""Fusion: models that learn from past targets what proxies and history let expect of a source. A file here is one."""
