"""The catalogue that queries are answered from: what the index knew is listed, reindexing reads the rest."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_PATIENT_AND_STUDY = (
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientBirthTime", "PatientSex",
    "OtherPatientIDs", "StudyDate", "StudyTime", "AccessionNumber", "StudyID", "StudyDescription",
    "ReferringPhysicianName", "PatientAge", "TimezoneOffsetFromUTC",
)  # fmt: skip
_SERIES = (
    "Modality", "SeriesNumber", "SeriesDescription", "SeriesDate", "SeriesTime", "ProtocolName",
    "BodyPartExamined", "Laterality", "FrameOfReferenceUID", "Manufacturer", "ManufacturerModelName",
    "StationName", "InstitutionName", "PerformingPhysicianName", "OperatorsName", "PerformedProcedureStepID",
    "PerformedProcedureStepDescription", "PerformedProcedureStepStartDate",
    "PerformedProcedureStepStartTime",
)  # fmt: skip
_IMAGE = (
    "SOPClassUID", "InstanceNumber", "ContentDate", "ContentTime", "AcquisitionNumber", "AcquisitionDate",
    "AcquisitionTime", "AcquisitionDateTime", "ImageType", "NumberOfFrames", "Rows", "Columns",
    "BitsAllocated", "ContentLabel", "ContentDescription", "CompletionFlag", "VerificationFlag",
    "AvailableTransferSyntaxUID",
)  # fmt: skip


def upgrade() -> None:
    """Make the catalogue's tables and list what is known."""
    _make_tables()
    _list_what_is_known()


def _texts(names: tuple[str, ...]) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.String(), nullable=False) for name in names]


def _make_tables() -> None:
    op.add_column("results", sa.Column("size_bytes", sa.Integer(), nullable=True))
    op.add_column("results", sa.Column("attributes", sa.JSON(), nullable=True))
    op.create_table(
        "catalogue_studies",
        sa.Column("StudyInstanceUID", sa.String(), nullable=False),
        *_texts(_PATIENT_AND_STUDY),
        sa.PrimaryKeyConstraint("StudyInstanceUID"),
    )
    op.create_index("catalogue_studies_by_patient", "catalogue_studies", ["PatientID"])
    op.create_index("catalogue_studies_by_date", "catalogue_studies", ["StudyDate"])
    op.create_index("catalogue_studies_by_accession", "catalogue_studies", ["AccessionNumber"])
    op.create_table(
        "catalogue_series",
        sa.Column("SeriesInstanceUID", sa.String(), nullable=False),
        sa.Column("StudyInstanceUID", sa.String(), nullable=False),
        *_texts(_SERIES),
        sa.ForeignKeyConstraint(["StudyInstanceUID"], ["catalogue_studies.StudyInstanceUID"]),
        sa.PrimaryKeyConstraint("SeriesInstanceUID"),
    )
    op.create_index("catalogue_series_by_study", "catalogue_series", ["StudyInstanceUID", "Modality"])
    op.create_table(
        "catalogue_instances",
        sa.Column("SOPInstanceUID", sa.String(), nullable=False),
        sa.Column("SeriesInstanceUID", sa.String(), nullable=False),
        *_texts(_IMAGE),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.Column("job_uid", sa.String(), nullable=True),
        sa.Column("whole", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["SeriesInstanceUID"], ["catalogue_series.SeriesInstanceUID"]),
        sa.ForeignKeyConstraint(["job_uid"], ["jobs.uid"]),
        sa.PrimaryKeyConstraint("SOPInstanceUID"),
    )
    names = ["SeriesInstanceUID", "SOPClassUID"]
    op.create_index("catalogue_instances_by_series", "catalogue_instances", names)
    op.create_index("catalogue_instances_by_job", "catalogue_instances", ["job_uid"])


def _list_what_is_known() -> None:
    _fill(
        "catalogue_studies",
        {"StudyInstanceUID": "study_uid", "PatientName": "patient_name", "PatientID": "patient_id"},
        _PATIENT_AND_STUDY,
        "FROM series GROUP BY study_uid",
    )
    _fill(
        "catalogue_series",
        {
            "SeriesInstanceUID": "uid",
            "StudyInstanceUID": "study_uid",
            "Modality": "modality",
            "SeriesDescription": "description",
        },
        _SERIES,
        "FROM series",
    )
    _fill(
        "catalogue_instances",
        {
            "SOPInstanceUID": "sop_instance_uid",
            "SeriesInstanceUID": "series_uid",
            "SOPClassUID": "sop_class_uid",
            "InstanceNumber": "COALESCE(CAST(instance_number AS TEXT), '')",
            "NumberOfFrames": "COALESCE(CAST(number_of_frames AS TEXT), '')",
            "AvailableTransferSyntaxUID": "transfer_syntax_uid",
            "version": "MAX(version)",  # the other columns are of the row that has it
            "path": "path",
            "size_bytes": "size_bytes",
            "whole": "0",
        },
        _IMAGE,
        "FROM instances WHERE sop_instance_uid NOT IN (SELECT sop_instance_uid FROM results) "
        "GROUP BY sop_instance_uid",
    )


def _fill(table: str, known: dict[str, str], names: tuple[str, ...], source: str) -> None:
    values = dict.fromkeys(names, "''") | known
    columns = ", ".join(f'"{name}"' for name in values)
    op.execute(f"INSERT INTO {table} ({columns}) SELECT {', '.join(values.values())} {source}")
