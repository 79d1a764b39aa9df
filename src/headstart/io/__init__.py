"""Disk and network: readers and writers of every file, and no choices."""
