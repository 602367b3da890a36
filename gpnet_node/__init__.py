"""GP-net DICOM node: receives 7T MR series, segments GPi and GPe, returns SEG and SR. Research use only."""
