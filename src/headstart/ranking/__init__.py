"""Ranking: predict which source helps, before spending."""
