"""The bank's tables, for SQLite and PostgreSQL alike; loaded when a bank is opened, not before.

A document is a JSON object as ASCII text, so any string that a file can hold comes back as it was, on both engines.
Rows are added and stay. What changes is a date: `removed` of a source, `used` of a cached array.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, Integer, LargeBinary, MetaData, Table, Text

metadata = MetaData()
Number = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up by itself in INTEGER alone

sources = Table(
    "sources",
    metadata,
    Column("number", Number, primary_key=True),
    Column("identity", Text, nullable=False),
    Column("weights", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("modality", Text, nullable=False),
    Column("document", Text, nullable=False),
    Column("files", Text, nullable=False),
    Column("added", Float, nullable=False),
    Column("removed", Float),
    Index("sources_by_identity", "identity"),
    Index("sources_by_weights", "weights"),
)

trained = Table(
    "trained",
    metadata,
    Column("number", Number, primary_key=True),
    Column("identity", Text, nullable=False),
    Column("hashes", Text, nullable=False),
    Column("added", Float, nullable=False),
    Index("trained_by_identity", "identity"),
)

targets = Table(
    "targets",
    metadata,
    Column("fingerprint", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("task", Text, nullable=False),
    Column("modality", Text, nullable=False),
    Column("metric", Text, nullable=False),
    Column("document", Text, nullable=False),
    Column("added", Float, nullable=False),
)

signatures = Table(
    "signatures",
    metadata,
    Column("fingerprint", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("vector", LargeBinary, nullable=False),
)

target_rows = Table(
    "target_rows",
    metadata,
    Column("fingerprint", Text, primary_key=True),
    Column("role", Text, primary_key=True),
    Column("hashes", Text, nullable=False),
)

openings = Table(
    "openings",
    metadata,
    Column("number", Number, primary_key=True),
    Column("test", Text, nullable=False),
    Column("run", Text, nullable=False),
    Column("at", Float, nullable=False),
    Index("openings_once_a_run", "test", "run", unique=True),
)

runs = Table(
    "runs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("target", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("verdict", Text),
    Column("seconds", Float, nullable=False),
    Column("document", Text, nullable=False),
    Column("at", Float, nullable=False),
    Index("runs_by_target", "target"),
)

trials = Table(
    "trials",
    metadata,
    Column("run", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("source", Text),
    Column("kind", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("valid", Float),  # on validation rows; figures of test rows are in the run's document alone
    Column("seconds", Float, nullable=False),
    Column("document", Text, nullable=False),
    Index("trials_by_source", "source"),
)

curves = Table(
    "curves",
    metadata,
    Column("run", Text, primary_key=True),
    Column("trial", Integer, primary_key=True),
    Column("repeat", Integer, primary_key=True),
    Column("fold", Integer, primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("loss", Float),
    Column("score", Float),
)

scores = Table(
    "scores",
    metadata,
    Column("run", Text, primary_key=True),
    Column("source", Text, primary_key=True),
    Column("estimator", Text, primary_key=True),
    Column("target", Text, nullable=False),
    Column("value", Float),
    Column("low", Float),
    Column("high", Float),
    Column("rows", Integer, nullable=False),
    Column("dropped", Text),
    Column("seconds", Float, nullable=False),
    Index("scores_by_target", "target"),
)

costs = Table(
    "costs",
    metadata,
    Column("run", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("stage", Text, nullable=False),
    Column("forecast_seconds", Float),
    Column("seconds", Float, nullable=False),
    Column("bytes", Number, nullable=False),
)

cached = Table(
    "cached",
    metadata,
    Column("folder", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("bytes", Number, nullable=False),
    Column("used", Float, nullable=False),
    Index("cached_by_use", "folder", "used"),
)

readings = Table(
    "readings",
    metadata,
    Column("key", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("space", Text, nullable=False),
    Column("document", Text, nullable=False),
    Column("arrays", LargeBinary, nullable=False),
    Column("added", Float, nullable=False),
    Index("readings_by_space", "kind", "space"),
)

records = Table(
    "records",
    metadata,
    Column("key", Text, primary_key=True),
    Column("origin", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("metric", Text, nullable=False),
    Column("sign", Integer, nullable=False),
    Column("value", Float, nullable=False),
    Column("seed", Number),
    Column("rows", Number),
    Column("seconds", Float),
    Column("split", Text, nullable=False),
    Column("extra", Text, nullable=False),
    Column("added", Float, nullable=False),
    Index("records_by_origin", "origin", "method", "metric"),
)
