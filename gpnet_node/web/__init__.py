"""Speaks HTTP: DICOMweb (PS3.18); the only importer of FastAPI and uvicorn."""
