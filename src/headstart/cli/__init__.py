"""The shell: parse, call, show."""
