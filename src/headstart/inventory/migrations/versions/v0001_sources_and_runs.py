"""Sources, targets, runs, and what was measured in them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

Number = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "sources",
        sa.Column("number", Number, primary_key=True),
        sa.Column("identity", sa.Text, nullable=False),
        sa.Column("weights", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("modality", sa.Text, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("files", sa.Text, nullable=False),
        sa.Column("added", sa.Float, nullable=False),
        sa.Column("removed", sa.Float),
    )
    op.create_index("sources_by_identity", "sources", ["identity"])
    op.create_index("sources_by_weights", "sources", ["weights"])
    op.create_table(
        "trained",
        sa.Column("number", Number, primary_key=True),
        sa.Column("identity", sa.Text, nullable=False),
        sa.Column("hashes", sa.Text, nullable=False),
        sa.Column("added", sa.Float, nullable=False),
    )
    op.create_index("trained_by_identity", "trained", ["identity"])
    op.create_table(
        "targets",
        sa.Column("fingerprint", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("modality", sa.Text, nullable=False),
        sa.Column("metric", sa.Text, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("added", sa.Float, nullable=False),
    )
    op.create_table(
        "signatures",
        sa.Column("fingerprint", sa.Text, primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("vector", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "target_rows",
        sa.Column("fingerprint", sa.Text, primary_key=True),
        sa.Column("role", sa.Text, primary_key=True),
        sa.Column("hashes", sa.Text, nullable=False),
    )
    op.create_table(
        "openings",
        sa.Column("number", Number, primary_key=True),
        sa.Column("test", sa.Text, nullable=False),
        sa.Column("run", sa.Text, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
    )
    op.create_index("openings_once_a_run", "openings", ["test", "run"], unique=True)
    op.create_table(
        "runs",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("verdict", sa.Text),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
    )
    op.create_index("runs_by_target", "runs", ["target"])
    op.create_table(
        "trials",
        sa.Column("run", sa.Text, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("source", sa.Text),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("method", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("valid", sa.Float),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
    )
    op.create_index("trials_by_source", "trials", ["source"])
    op.create_table(
        "curves",
        sa.Column("run", sa.Text, primary_key=True),
        sa.Column("trial", sa.Integer, primary_key=True),
        sa.Column("repeat", sa.Integer, primary_key=True),
        sa.Column("fold", sa.Integer, primary_key=True),
        sa.Column("step", sa.Integer, primary_key=True),
        sa.Column("loss", sa.Float),
        sa.Column("score", sa.Float),
    )
    op.create_table(
        "scores",
        sa.Column("run", sa.Text, primary_key=True),
        sa.Column("source", sa.Text, primary_key=True),
        sa.Column("estimator", sa.Text, primary_key=True),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("value", sa.Float),
        sa.Column("low", sa.Float),
        sa.Column("high", sa.Float),
        sa.Column("rows", sa.Integer, nullable=False),
        sa.Column("dropped", sa.Text),
        sa.Column("seconds", sa.Float, nullable=False),
    )
    op.create_index("scores_by_target", "scores", ["target"])
    op.create_table(
        "costs",
        sa.Column("run", sa.Text, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("forecast_seconds", sa.Float),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("bytes", Number, nullable=False),
    )
