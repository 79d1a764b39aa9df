"""Runs the steps on the connection that `inventory.database` holds, inside its transaction."""

from __future__ import annotations

from alembic import context

if hasattr(context, "config"):  # Alembic runs this file; nothing happens where it is only imported
    context.configure(connection=context.config.attributes["connection"], version_table="headstart_version")
    with context.begin_transaction():
        context.run_migrations()
