"""What was read off sources once, so that they need not be opened again: arrays with the space that they lie in."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "readings",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("space", sa.Text, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("arrays", sa.LargeBinary, nullable=False),
        sa.Column("added", sa.Float, nullable=False),
    )
    op.create_index("readings_by_space", "readings", ["kind", "space"])
