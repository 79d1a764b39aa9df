"""Weighting: how much of each model goes into a tensor. A file here is a method; `merge` runs it."""
