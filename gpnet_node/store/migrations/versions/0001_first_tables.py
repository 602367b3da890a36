"""The first tables: what arrived, what was decided, what is worked on, what is owed."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make all tables of version 0.1."""
    op.create_table(
        "associations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("calling_ae", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("opened_at", sa.String(length=32), nullable=False),
        sa.Column("closed_at", sa.String(length=32), nullable=True),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("associations_by_outcome", "associations", ["outcome"], unique=False)
    op.create_table(
        "series",
        sa.Column("uid", sa.String(), nullable=False),
        sa.Column("study_uid", sa.String(), nullable=False),
        sa.Column("modality", sa.String(), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("patient_id", sa.String(), nullable=False),
        sa.Column("patient_name", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("created_at", sa.String(length=32), nullable=False),
        sa.Column("last_received_at", sa.String(length=32), nullable=False),
        sa.Column("decided_at", sa.String(length=32), nullable=True),
        sa.PrimaryKeyConstraint("uid"),
    )
    op.create_index("series_by_state", "series", ["state", "last_received_at"], unique=False)
    op.create_table(
        "instances",
        sa.Column("sop_instance_uid", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("series_uid", sa.String(), nullable=False),
        sa.Column("sop_class_uid", sa.String(), nullable=False),
        sa.Column("transfer_syntax_uid", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("instance_number", sa.Integer(), nullable=True),
        sa.Column("acquisition_number", sa.Integer(), nullable=True),
        sa.Column("images_in_acquisition", sa.Integer(), nullable=True),
        sa.Column("number_of_frames", sa.Integer(), nullable=True),
        sa.Column("concatenation_uid", sa.String(), nullable=True),
        sa.Column("in_concatenation_total", sa.Integer(), nullable=True),
        sa.Column("received_at", sa.String(length=32), nullable=False),
        sa.Column("association_id", sa.Integer(), nullable=True),
        sa.Column("calling_ae", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["association_id"],
            ["associations.id"],
        ),
        sa.ForeignKeyConstraint(
            ["series_uid"],
            ["series.uid"],
        ),
        sa.PrimaryKeyConstraint("sop_instance_uid", "version"),
        sa.UniqueConstraint("path"),
    )
    op.create_index("instances_by_series", "instances", ["series_uid"], unique=False)
    op.create_table(
        "jobs",
        sa.Column("uid", sa.String(), nullable=False),
        sa.Column("series_uid", sa.String(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("lease_owner", sa.String(), nullable=True),
        sa.Column("lease_expires_at", sa.String(length=32), nullable=True),
        sa.Column("route", sa.String(), nullable=True),
        sa.Column("model", sa.String(), nullable=True),
        sa.Column("label_digest", sa.String(), nullable=True),
        sa.Column("created_at", sa.String(length=32), nullable=False),
        sa.Column("updated_at", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["series_uid"],
            ["series.uid"],
        ),
        sa.PrimaryKeyConstraint("uid"),
    )
    op.create_index("jobs_by_series", "jobs", ["series_uid"], unique=False)
    op.create_index("jobs_by_state", "jobs", ["state", "created_at"], unique=False)
    op.create_table(
        "series_associations",
        sa.Column("series_uid", sa.String(), nullable=False),
        sa.Column("association_id", sa.Integer(), nullable=False),
        sa.Column("last_at", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["association_id"],
            ["associations.id"],
        ),
        sa.ForeignKeyConstraint(
            ["series_uid"],
            ["series.uid"],
        ),
        sa.PrimaryKeyConstraint("series_uid", "association_id"),
    )
    op.create_table(
        "series_history",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("series_uid", sa.String(), nullable=False),
        sa.Column("at", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("sentence", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["series_uid"],
            ["series.uid"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("series_history_by_series", "series_history", ["series_uid"], unique=False)
    op.create_table(
        "job_history",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("job_uid", sa.String(), nullable=False),
        sa.Column("at", sa.String(length=32), nullable=False),
        sa.Column("from_state", sa.String(), nullable=True),
        sa.Column("to_state", sa.String(), nullable=False),
        sa.Column("sentence", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_uid"],
            ["jobs.uid"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("job_history_by_job", "job_history", ["job_uid"], unique=False)
    op.create_table(
        "outbox",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("job_uid", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("peer", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("owed_since", sa.String(length=32), nullable=False),
        sa.Column("next_attempt_at", sa.String(length=32), nullable=False),
        sa.Column("updated_at", sa.String(length=32), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("comment", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_uid"],
            ["jobs.uid"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("outbox_by_debt", "outbox", ["job_uid", "kind", "peer"], unique=True)
    op.create_index("outbox_by_state", "outbox", ["state", "next_attempt_at"], unique=False)
    op.create_table(
        "results",
        sa.Column("job_uid", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("sop_class_uid", sa.String(), nullable=False),
        sa.Column("sop_instance_uid", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_uid"],
            ["jobs.uid"],
        ),
        sa.PrimaryKeyConstraint("job_uid", "kind"),
        sa.UniqueConstraint("sop_instance_uid"),
    )
