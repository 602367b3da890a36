"""From DICOM files to one gap-free volume, or the reason why not."""
