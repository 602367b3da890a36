"""Objects have names of their own: a kind can hold many. A job can carry a plan, or only report."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Name each object by its kind, of which there was one so far."""
    op.add_column("jobs", sa.Column("plan", sa.String(), nullable=True))
    op.add_column("jobs", sa.Column("refusal", sa.String(), nullable=True))
    op.drop_index("outbox_by_debt", "outbox")
    op.alter_column("outbox", "kind", new_column_name="name")
    op.create_index("outbox_by_debt", "outbox", ["job_uid", "name", "peer"], unique=True)
    op.rename_table("results", "results_of_one_kind")
    op.create_table(
        "results",
        sa.Column("job_uid", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("sop_class_uid", sa.String(), nullable=False),
        sa.Column("sop_instance_uid", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=True),
        sa.Column("attributes", sa.JSON(), nullable=True),
        sa.ForeignKeyConstraint(["job_uid"], ["jobs.uid"]),
        sa.PrimaryKeyConstraint("job_uid", "name"),
        sa.UniqueConstraint("sop_instance_uid"),
    )
    op.execute(
        "INSERT INTO results SELECT job_uid, kind, kind, sop_class_uid, sop_instance_uid, path, sha256, "
        "size_bytes, attributes FROM results_of_one_kind"
    )
    op.drop_table("results_of_one_kind")
