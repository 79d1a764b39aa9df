"""No-transfer systems: what the target's own rows can do, without any source. Every other file here is a method."""
