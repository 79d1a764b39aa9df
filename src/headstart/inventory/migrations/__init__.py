"""The bank's versions, one file a step; run by `inventory.database` when an older bank is opened."""
