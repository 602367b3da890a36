"""Coded concepts that the results use besides the model card's, and the schemes that must be named."""

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept

from gpnet_node.model.card import Code

VOLUME = Code(value="118565006", scheme="SCT", meaning="Volume")
SUM_OF_VOXELS = Code(value="126030", scheme="DCM", meaning="Sum of segmented voxel method for volume")
CENTRE_OF_MASS = Code(value="128138", scheme="DCM", meaning="Center of Mass")
SIGNAL = Code(value="110852", scheme="DCM", meaning="MR signal intensity")
MEAN = Code(value="373098007", scheme="SCT", meaning="Mean")
STANDARD_DEVIATION = Code(value="386136009", scheme="SCT", meaning="Standard Deviation")
EQUATION = Code(value="121420", scheme="DCM", meaning="Equation")
COMMENT = Code(value="121106", scheme="DCM", meaning="Comment")
ARTIFICIAL_INTELLIGENCE = Code(value="123110", scheme="DCM", meaning="Artificial Intelligence")
ACQUISITION_EQUIPMENT = Code(value="109101", scheme="DCM", meaning="Acquisition Equipment")
PROCESSING_EQUIPMENT = Code(value="109102", scheme="DCM", meaning="Processing Equipment")
REJECTED = Code(value="113001", scheme="DCM", meaning="Rejected for Quality Reasons")
WITHDRAWN = Code(value="113037", scheme="DCM", meaning="Rejected for Patient Safety Reasons")
IMAGING_REPORT = Code(value="18748-4", scheme="LN", meaning="Diagnostic Imaging Report")
FINDINGS = Code(value="59776-5", scheme="LN", meaning="Findings")
FINDING = Code(value="121071", scheme="DCM", meaning="Finding")
DEVICE = Code(value="121007", scheme="DCM", meaning="Device")
SOURCE_IMAGE = Code(value="121322", scheme="DCM", meaning="Source image for image processing operation")
MEASUREMENT_REPORT = Code(value="126000", scheme="DCM", meaning="Imaging Measurement Report")
MR_IMAGING = Code(value="25056-3", scheme="LN", meaning="MRI unspecified body region")

# No published scheme that DICOM names has these. The coordinates repeat the point that the report
# gives as SCOORD3D, for the many readers that show numbers only.
ASYMMETRY = Code(value="asymmetry", scheme="99GPNET", meaning="Left-right asymmetry of volume")
CENTRE_X = Code(value="centre-x", scheme="99GPNET", meaning="Center of mass, x (to patient left)")
CENTRE_Y = Code(value="centre-y", scheme="99GPNET", meaning="Center of mass, y (to patient back)")
CENTRE_Z = Code(value="centre-z", scheme="99GPNET", meaning="Center of mass, z (to patient head)")

AC_PC = {
    "left_mm": Code(
        value="acpc-left", scheme="99GPNET", meaning="Center of mass, to patient left of the mid-AC-PC point"
    ),
    "anterior_mm": Code(
        value="acpc-anterior", scheme="99GPNET", meaning="Center of mass, anterior of the mid-AC-PC point"
    ),
    "superior_mm": Code(
        value="acpc-superior", scheme="99GPNET", meaning="Center of mass, superior to the AC-PC plane"
    ),
}
PREDICTED_DICE = Code(
    value="predicted-dice", scheme="99GPNET", meaning="Dice coefficient that the model expects"
)
ENTROPY = Code(value="entropy", scheme="99GPNET", meaning="Mean entropy of the model's classes, nats")
COMPLETENESS = Code(value="completeness", scheme="99GPNET", meaning="Why the series was thought complete")
GATE = Code(value="gate", scheme="99GPNET", meaning="Remark of the eligibility gate")
REVIEW = Code(value="review", scheme="99GPNET", meaning="Reason for a review before use")

CUBIC_MM = Code(value="mm3", scheme="UCUM", meaning="cubic millimeter")
MM = Code(value="mm", scheme="UCUM", meaning="millimeter")
PERCENT = Code(value="%", scheme="UCUM", meaning="Percent")
NO_UNITS = Code(value="1", scheme="UCUM", meaning="no units")


def concept(code: Code) -> CodedConcept:
    """The code as highdicom writes it into a sequence."""
    return CodedConcept(code.value, code.scheme, code.meaning)


def uberon() -> CodingSchemeIdentificationItem:
    """Uberon, by the UID that DICOM gives it (PS3.16 section 8)."""
    item = CodingSchemeIdentificationItem(designator="UBERON", name="Uberon")
    item.CodingSchemeUID = "1.2.840.10008.2.16.6"
    return item


def private_scheme() -> CodingSchemeIdentificationItem:
    """The node's own scheme, for what no published scheme has (PS3.16 section 8.2)."""
    return CodingSchemeIdentificationItem(
        designator="99GPNET",
        name="gpnet_node private codes",
        version="1",
        responsible_organization="gpnet_node",
    )
