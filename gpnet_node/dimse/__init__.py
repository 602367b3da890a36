"""Speaks the DICOM upper layer; the only importer of pynetdicom."""
