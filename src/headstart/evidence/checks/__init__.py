"""Checks on tables of test predictions; the verb over them is `evidence.verify`."""
