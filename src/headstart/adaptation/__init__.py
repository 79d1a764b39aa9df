"""Adaptation: fit a system for the target, from a source or from nothing."""
