"""Give a new task a head start from everything that has already been learned."""
