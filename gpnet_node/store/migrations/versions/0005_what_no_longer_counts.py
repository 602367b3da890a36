"""What no longer counts: instances that a note rejects, and results that were made of such."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table, and note of a job why its result no longer holds."""
    op.add_column("jobs", sa.Column("withdrawn", sa.String(), nullable=True))
    op.create_table(
        "rejected_instances",
        sa.Column("note_uid", sa.String(), nullable=False),
        sa.Column("sop_instance_uid", sa.String(), nullable=False),
        sa.Column("title", sa.String(), nullable=False),
        sa.Column("calling_ae", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("note_uid", "sop_instance_uid"),
    )
    op.create_index("rejected_instances_by_instance", "rejected_instances", ["sop_instance_uid"])
