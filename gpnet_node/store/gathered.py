"""Attributes that are counted or gathered from the catalogue's rows when they are asked for (PS3.4 C.3.4)."""

from typing import Any

from sqlalchemy import ColumnElement, FromClause, String, and_, cast, distinct, exists, func, select

from gpnet_node.store.database import catalogue_instances, catalogue_series, catalogue_studies

_OTHERS = catalogue_studies.alias("studies_of_patient")
_SERIES = catalogue_series.alias("series_below")
_INSTANCES = catalogue_instances.alias("instances_below")
_OF_STUDY = _SERIES.c.StudyInstanceUID == catalogue_studies.c.StudyInstanceUID
_OF_SERIES = _INSTANCES.c.SeriesInstanceUID == catalogue_series.c.SeriesInstanceUID
_SAME_PATIENT = _OTHERS.c.PatientID == catalogue_studies.c.PatientID
_WITH_INSTANCES = _SERIES.join(_INSTANCES, _INSTANCES.c.SeriesInstanceUID == _SERIES.c.SeriesInstanceUID)
_WITH_SERIES = _OTHERS.join(_SERIES, _SERIES.c.StudyInstanceUID == _OTHERS.c.StudyInstanceUID)
_ALL = _WITH_SERIES.join(_INSTANCES, _INSTANCES.c.SeriesInstanceUID == _SERIES.c.SeriesInstanceUID)


def gathered(keyword: str) -> ColumnElement[Any]:
    """Return the column: a number as text, or a JSON list of distinct texts."""
    counts: dict[str, tuple[FromClause, ColumnElement[bool]]] = {
        "NumberOfPatientRelatedStudies": (_OTHERS, _SAME_PATIENT),
        "NumberOfPatientRelatedSeries": (_WITH_SERIES, _SAME_PATIENT),
        "NumberOfPatientRelatedInstances": (_ALL, _SAME_PATIENT),
        "NumberOfStudyRelatedSeries": (_SERIES, _OF_STUDY),
        "NumberOfStudyRelatedInstances": (_WITH_INSTANCES, _OF_STUDY),
        "NumberOfSeriesRelatedInstances": (_INSTANCES, _OF_SERIES),
    }
    if keyword in counts:
        tables, same = counts[keyword]
        query = select(cast(func.count(), String)).select_from(tables).where(same)
    else:
        tables, column = _lists(keyword)
        query = select(func.json_group_array(distinct(column))).select_from(tables).where(_OF_STUDY)
    return query.correlate(catalogue_studies, catalogue_series).scalar_subquery().label(keyword)


def any_of_study(keyword: str, matching: ColumnElement[bool]) -> ColumnElement[bool]:
    """Whether the study has a row below it that matches; ``below`` names the column to match by."""
    tables, _ = _lists(keyword)
    query = select(1).select_from(tables).where(and_(_OF_STUDY, matching))
    return exists(query.correlate(catalogue_studies))


def below(keyword: str) -> ColumnElement[str]:
    """Return the column that a list attribute of a study is gathered from."""
    return _lists(keyword)[1]


def _lists(keyword: str) -> tuple[FromClause, ColumnElement[str]]:
    lists: dict[str, tuple[FromClause, ColumnElement[str]]] = {
        "ModalitiesInStudy": (_SERIES, _SERIES.c.Modality),
        "SOPClassesInStudy": (_WITH_INSTANCES, _INSTANCES.c.SOPClassUID),
    }
    return lists[keyword]


def of_patient() -> ColumnElement[bool]:
    """Whether a study stands for its patient: it is the newest one of that ID, which is not empty."""
    newest = (
        select(_OTHERS.c.StudyInstanceUID)
        .where(_SAME_PATIENT)
        .order_by(_OTHERS.c.StudyDate.desc(), _OTHERS.c.StudyTime.desc(), _OTHERS.c.StudyInstanceUID)
        .limit(1)
        .correlate(catalogue_studies)
        .scalar_subquery()
    )
    return and_(catalogue_studies.c.PatientID != "", catalogue_studies.c.StudyInstanceUID == newest)
