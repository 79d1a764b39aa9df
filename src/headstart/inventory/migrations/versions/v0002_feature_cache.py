"""The index of the feature cache: which arrays lie in a cache folder, how large, and when each was last used."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "cached",
        sa.Column("folder", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("bytes", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=False),
        sa.Column("used", sa.Float, nullable=False),
    )
    op.create_index("cached_by_use", "cached", ["folder", "used"])
