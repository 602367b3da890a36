"""What others say that there is: performed procedure steps, and requests for storage commitment."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables, and note of what is owed whether its safekeeping was asked for."""
    op.add_column("outbox", sa.Column("transaction_uid", sa.String(), nullable=True))
    op.add_column("outbox", sa.Column("asked_at", sa.String(32), nullable=True))
    op.create_table(
        "performed_steps",
        sa.Column("uid", sa.String(), nullable=False),
        sa.Column("calling_ae", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("updated_at", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("uid"),
    )
    op.create_table(
        "listed_images",
        sa.Column("step_uid", sa.String(), nullable=False),
        sa.Column("sop_instance_uid", sa.String(), nullable=False),
        sa.Column("series_uid", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["step_uid"], ["performed_steps.uid"]),
        sa.PrimaryKeyConstraint("step_uid", "sop_instance_uid"),
    )
    op.create_index("listed_images_by_series", "listed_images", ["series_uid"])
    op.create_table(
        "commitments",
        sa.Column("transaction_uid", sa.String(), nullable=False),
        sa.Column("peer", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("asked_at", sa.String(32), nullable=False),
        sa.Column("next_attempt_at", sa.String(32), nullable=False),
        sa.Column("comment", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("transaction_uid"),
    )
    op.create_index("commitments_by_state", "commitments", ["state", "next_attempt_at"])
    op.create_table(
        "commitment_instances",
        sa.Column("transaction_uid", sa.String(), nullable=False),
        sa.Column("sop_instance_uid", sa.String(), nullable=False),
        sa.Column("sop_class_uid", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["transaction_uid"], ["commitments.transaction_uid"]),
        sa.PrimaryKeyConstraint("transaction_uid", "sop_instance_uid"),
    )
    op.create_index("commitment_instances_by_instance", "commitment_instances", ["sop_instance_uid"])
