"""One file for each step from a version of the bank to the next; a step that was released never changes."""
