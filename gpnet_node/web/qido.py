"""QIDO-RS (PS3.18 10.6): searches for studies, series and instances."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import Response
from pydicom import DataElement, Dataset, config
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.tag import Tag

from gpnet_node.errors import QueryError
from gpnet_node.store.attributes import ATTRIBUTES
from gpnet_node.store.catalogue import Catalogue, Level
from gpnet_node.web.answers import checked, in_pieces, root_url, url_of, warning
from gpnet_node.web.json_model import as_json
from gpnet_node.web.media import DICOM_JSON, JSON, accepted, first_of

# PS3.18 Tables 10.6.3-3 to 10.6.3-5: what is returned unasked.
_RETURNED: Mapping[Level, tuple[str, ...]] = {
    Level.STUDY: (
        "StudyDate", "StudyTime", "AccessionNumber", "ModalitiesInStudy", "ReferringPhysicianName",
        "TimezoneOffsetFromUTC", "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
        "StudyInstanceUID", "StudyID", "StudyDescription", "NumberOfStudyRelatedSeries",
        "NumberOfStudyRelatedInstances",
    ),
    Level.SERIES: (
        "Modality", "TimezoneOffsetFromUTC", "SeriesDescription", "SeriesInstanceUID", "SeriesNumber",
        "NumberOfSeriesRelatedInstances", "PerformedProcedureStepStartDate",
        "PerformedProcedureStepStartTime",
    ),
    Level.IMAGE: (
        "SOPClassUID", "SOPInstanceUID", "TimezoneOffsetFromUTC", "InstanceNumber", "Rows", "Columns",
        "BitsAllocated", "NumberOfFrames", "AvailableTransferSyntaxUID",
    ),
}  # fmt: skip
_OPTIONS = frozenset({"limit", "offset", "fuzzymatching", "includefield", "accept"})
_HEX = re.compile(r"[0-9A-Fa-f]{8}")
_INTEGERS = frozenset({"US", "UL", "SS", "SL"})
_MAX_PARAMETERS = 100
_MAX_NUMBER = 2**31


@dataclass(frozen=True, kw_only=True)
class _Search:
    """One search as it was asked for; ``unknown``: attributes that are neither matched nor returned."""

    level: Level
    identifier: Dataset
    limit: int | None
    offset: int
    fuzzy: bool
    unknown: tuple[str, ...]


class Qido:
    """The search transaction; ``url``: how clients reach the service, if not as they say."""

    def __init__(self, catalogue: Catalogue, *, url: str | None) -> None:
        self._catalogue = catalogue
        self._url = url

    def router(self) -> APIRouter:
        """Return the routes; where a level is left out, all of it is searched (PS3.18 10.6.1.1)."""
        router = APIRouter()
        study, series = "/studies/{study}", "/series/{series}"
        router.add_api_route("/studies", self.studies, methods=["GET"])
        for path in ("/series", f"{study}/series"):
            router.add_api_route(path, self.series, methods=["GET"])
        for path in ("/instances", f"{study}/instances", f"{study}{series}/instances"):
            router.add_api_route(path, self.instances, methods=["GET"])
        return router

    def studies(self, request: Request) -> Response:
        """Search for studies."""
        return self._answer(request, Level.STUDY)

    def series(self, request: Request) -> Response:
        """Search for series, of one study or of all."""
        return self._answer(request, Level.SERIES)

    def instances(self, request: Request) -> Response:
        """Search for instances, of one series, of one study, or of all."""
        return self._answer(request, Level.IMAGE)

    def _answer(self, request: Request, level: Level) -> Response:
        """Search now, and send while reading: 200, with an empty list where nothing matches."""
        request.state.searched = True
        media_type = first_of(accepted(request), (DICOM_JSON, JSON))
        search = self._understood(request, level)
        try:
            found = self._catalogue.find(
                level,
                search.identifier,
                limit=search.limit,
                offset=search.offset,
                fuzzy=search.fuzzy,
            )
        except QueryError as exc:
            raise HTTPException(400, str(exc)) from exc
        root = root_url(request, self._url)
        headers = {"Warning": warning(_remark(search))} if search.unknown else {}
        return in_pieces(_list(found, level, root), media_type, headers=headers)

    def _understood(self, request: Request, level: Level) -> _Search:
        """Raises HTTPException 400."""
        query = request.query_params
        if len(query.multi_items()) > _MAX_PARAMETERS:
            raise HTTPException(400, "the query has too many parameters")
        identifier = Dataset()
        matched = {"StudyInstanceUID": "study", "SeriesInstanceUID": "series"}
        for keyword, name in matched.items():
            if name in request.path_params:
                identifier.add(_key(keyword, *checked(request.path_params[name])))
        for name in dict.fromkeys(query):
            if name not in _OPTIONS:
                element = _key(name, *query.getlist(name))
                if element.tag in identifier and identifier[element.tag].value != element.value:
                    raise HTTPException(400, "the query says twice what an attribute should be")
                identifier.add(element)
        unknown = self._catalogue.unsupported(level, identifier)
        for keyword in _returned(level, request, query.getlist("includefield")):
            if keyword not in identifier:
                identifier.add(_key(keyword, ""))
        return _Search(
            level=level,
            identifier=identifier,
            limit=_count(query.get("limit")),
            offset=_count(query.get("offset")) or 0,
            fuzzy=_flag(query.get("fuzzymatching")),
            unknown=unknown,
        )


def _returned(level: Level, request: Request, include: list[str]) -> list[str]:
    """Return the keywords to answer: of this level, of upper ones that the path leaves open, and more."""
    keywords = list(_RETURNED[level])
    if level is not Level.STUDY and "study" not in request.path_params:
        keywords += _RETURNED[Level.STUDY]
    if level is Level.IMAGE and "series" not in request.path_params:
        keywords += _RETURNED[Level.SERIES]
    named = [field.strip() for text in include for field in text.split(",") if field.strip()]
    if "all" in named:
        keywords += [k for k, it in ATTRIBUTES.items() if level.includes(it.level) and it.level != "PATIENT"]
        keywords += [k for k, it in ATTRIBUTES.items() if it.level is Level.PATIENT and not it.gathered]
    for name in named:
        if name != "all":
            keywords.append(_keyword(name))
    return list(dict.fromkeys(keyword for keyword in keywords if keyword))


def _keyword(name: str) -> str:
    """Return the keyword of an attribute that is named by keyword or tag; empty if it has none."""
    return _key(name, "").keyword


def _key(name: str, *values: str) -> DataElement:
    """Make a key of a parameter. Raises HTTPException 400 for what is no attribute, or no value of it."""
    name = name.partition(".")[0]  # keys within sequences are not matched by, nor their sequences
    tag = Tag(int(name, 16)) if _HEX.fullmatch(name) else tag_for_keyword(name)
    if tag is None:
        raise HTTPException(400, "a parameter is neither an attribute nor an option of the search")
    try:
        vr = dictionary_VR(tag)
    except KeyError:
        vr = "UN"
    if len(values) > 1 and vr != "UI":
        raise HTTPException(400, "the query says twice what an attribute should be")
    text = "\\".join(values)
    if vr == "UI":
        text = text.replace(",", "\\")  # a list of UIDs (PS3.18 8.3.4.1)
    if vr in ("UN", "SQ", "OB", "OW", "OB or OW", "OF", "OD", "OL"):
        return DataElement(tag, "SQ" if vr == "SQ" else "UN", None)
    try:
        value = int(text) if vr in _INTEGERS and text else text
        return DataElement(tag, vr, value, validation_mode=config.IGNORE)
    except (TypeError, ValueError, OverflowError) as exc:
        raise HTTPException(400, "a value is not one that its attribute can have") from exc


def _count(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 12 or int(text) > _MAX_NUMBER:
        raise HTTPException(400, "limit and offset are numbers from 0")
    return int(text)


def _flag(text: str | None) -> bool:
    if text not in (None, "true", "false"):
        raise HTTPException(400, "fuzzymatching is true or false")
    return text == "true"


def _remark(search: _Search) -> str:
    return f"not supported, and not matched by: {', '.join(search.unknown)}"


def _list(found: Iterator[Dataset], level: Level, root: str) -> Iterator[bytes]:
    separator = b"["
    for data_set in found:
        yield separator + json.dumps(_model(data_set, level, root), separators=(",", ":")).encode()
        separator = b","
    yield b"[]" if separator == b"[" else b"]"


def _model(data_set: Dataset, level: Level, root: str) -> Mapping[str, object]:
    uids = [str(data_set.get(k, "")) for k in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")]
    del data_set.QueryRetrieveLevel
    if level is Level.IMAGE:
        for keyword in ("Rows", "Columns", "BitsAllocated", "NumberOfFrames"):
            if keyword in data_set and data_set[keyword].is_empty:  # of what is no image
                del data_set[keyword]
    data_set.RetrieveURL = url_of(root, *uids)
    return as_json(data_set, lambda path: "")
