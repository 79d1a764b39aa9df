"""Routes: fit a source to the target, from a head on frozen features to all weights. A file here is a method."""
