"""Records of transfer runs that were made elsewhere, by the names that their file has."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

Number = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "records",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("method", sa.Text, nullable=False),
        sa.Column("metric", sa.Text, nullable=False),
        sa.Column("sign", sa.Integer, nullable=False),
        sa.Column("value", sa.Float, nullable=False),
        sa.Column("seed", Number),
        sa.Column("rows", Number),
        sa.Column("seconds", sa.Float),
        sa.Column("split", sa.Text, nullable=False),
        sa.Column("extra", sa.Text, nullable=False),
        sa.Column("added", sa.Float, nullable=False),
    )
    op.create_index("records_by_origin", "records", ["origin", "method", "metric"])
