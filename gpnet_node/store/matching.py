"""Attribute matching of queries (PS3.4 C.2.2.2), one stored value against one key.

Every way takes time linear in the stored value and in the key, whatever wildcards the key has.
"""

import re
import unicodedata
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from gpnet_node.errors import QueryError

RANGES = frozenset({"DA", "TM", "DT"})
NUMBERS = frozenset({"IS", "US"})
_LONGEST_KEY = 1024
_MARKS = range(0x0300, 0x0370)  # accents of the Latin, Greek and Cyrillic scripts
_DATE = re.compile(r"(\d{4})\.?(\d{2})\.?(\d{2})")
_TIME = re.compile(r"(\d{2})(?::?(\d{2})(?::?(\d{2})(?:\.(\d{1,6}))?)?)?")
_OFFSET = r"[+-](?:0\d|1[0-4])\d{2}"  # behind a date and time, -1400 to +1400 is an offset and no year
_MOMENT = re.compile(rf"(\d{{4,14}})(\.\d{{1,6}})?({_OFFSET})?")
_SPANS = (timedelta(days=1), timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1))
_EARLIEST, _LATEST = "00010101000000.000000", "99991231235959.999999"

Bounds = tuple[str, str]  # inclusive, of one fixed width, so that they compare as texts


def matches(vr: str, stored: str, key: str) -> bool:
    """Whether any stored value matches the key, which is not empty and has passed ``check``.

    Person names are matched without regard to case and accents, each component group by itself
    (PS3.4 C.2.2.2.1); an integer by its value; a date or time by what it means. An empty value matches
    nothing but a key of asterisks.
    """
    return any(_matches(vr, one.strip(), part) for one in stored.split("\\") for part in key.split("\\"))


def resembles(stored: str, key: str) -> bool:
    """Whether each word of the key begins a word of the person name (fuzzy semantic matching)."""
    words = _words(stored)
    return all(any(word.startswith(wanted) for word in words) for wanted in _words(key.replace("*", "")))


def check(keyword: str, vr: str, key: str) -> None:
    """Raise QueryError for a key that cannot be understood; its value is not quoted."""
    if len(key) > _LONGEST_KEY and vr != "UI":
        raise QueryError(f"{keyword} is longer than {_LONGEST_KEY} characters")
    for part in key.split("\\"):
        if vr in NUMBERS and not re.fullmatch(r"[+-]?\d{1,12}", part.strip()):
            raise QueryError(f"{keyword} is not an integer")
        if vr == "UI" and not re.fullmatch(r"[0-9.]{1,64}", part.strip("\0 ")):
            raise QueryError(f"{keyword} is not a UID")
        if vr in RANGES:
            bounds(keyword, vr, part)


def is_universal(key: str) -> bool:
    """Whether the key matches everything (PS3.4 C.2.2.2.3): it is empty, or all asterisks."""
    return not key.strip("*\0 ")


def has_wildcard(key: str) -> bool:
    """Whether the key has a character that stands for others (PS3.4 C.2.2.2.4)."""
    return "*" in key or "?" in key


@lru_cache(maxsize=256)
def bounds(keyword: str, vr: str, key: str) -> Bounds:
    """Return the first and the last value that a date or time key takes in (PS3.4 C.2.2.2.5).

    A single value takes in itself. Bounds of DA are YYYYMMDD, of TM HHMMSS.FFFFFF, of DT both in UTC; a date
    and time without offset is taken as UTC. Raises QueryError.
    """
    first, last = _split(vr, key.strip())
    if last is None:  # a single value
        low = high = _interval(vr, first)[0]
    else:
        low = _interval(vr, first)[0] if first else _ends(vr)[0]
        high = _interval(vr, last)[1] if last else _ends(vr)[1]
    if not low or not high or not (first or last):
        raise QueryError(f"{keyword} is neither a value of {vr} nor a range of values")
    return low, high


def _split(vr: str, key: str) -> tuple[str, str | None]:
    """Return both ends of a range, or a single value and None."""
    if vr != "DT" or key.startswith("-"):
        first, dash, last = key.partition("-")
        return first.strip(), last.strip() if dash else None
    match = _MOMENT.match(key)
    first = match[0] if match else key
    rest = key[len(first) :].strip()
    if not rest:
        return first, None
    return (first, rest[1:].strip()) if rest.startswith("-") else (key, None)


def _ends(vr: str) -> Bounds:
    return {"DA": (_EARLIEST[:8], _LATEST[:8]), "TM": (_EARLIEST[8:], _LATEST[8:])}.get(
        vr, (_EARLIEST, _LATEST)
    )


@lru_cache(maxsize=4096)
def _interval(vr: str, value: str) -> Bounds:
    """Return the first and last instant that a value of limited precision stands for; empty: it is none."""
    if vr == "DA":
        match = _DATE.fullmatch(value)
        date = "".join(match.groups()) if match else ""
        return date, date
    if vr == "TM":
        match = _TIME.fullmatch(value)
        return _padded(match, _EARLIEST[8:], _LATEST[8:]) if match else ("", "")
    return _moments(value)


def _padded(match: re.Match[str], low: str, high: str) -> Bounds:
    hours, minutes, seconds, fraction = match.groups()
    text = "".join(part or "" for part in (hours, minutes, seconds))
    text += f".{fraction}" if fraction else ""
    return text + low[len(text) :], text + high[len(text) :]


def _moments(value: str) -> Bounds:
    match = _MOMENT.fullmatch(value)
    if not match or len(match[1]) % 2 or (match[2] and len(match[1]) != 14):
        return "", ""
    given = [int(match[1][:4]), *(int(match[1][at : at + 2]) for at in range(4, len(match[1]), 2))]
    fraction = (match[2] or ".")[1:]
    year, month, day, hour, minute, second = given + [1, 1, 1, 0, 0, 0][len(given) :]
    try:
        first = datetime(year, month, day, hour, minute, second, int(fraction.ljust(6, "0")), UTC)
        spans = (_to_new_year(first), _to_new_month(first), *_SPANS)
        last = first + (
            timedelta(microseconds=10 ** (6 - len(fraction))) if fraction else spans[len(given) - 1]
        )
        return _in_utc(first, match[3]), _in_utc(last - timedelta(microseconds=1), match[3])
    except (ValueError, OverflowError):  # no such day, or beyond the calendar
        return "", ""


def _to_new_year(moment: datetime) -> timedelta:
    return moment.replace(year=moment.year + 1, month=1, day=1) - moment  # there is no 29 February


def _to_new_month(moment: datetime) -> timedelta:
    return (moment + timedelta(days=31)).replace(day=1) - moment


def _in_utc(moment: datetime, offset: str | None) -> str:
    if offset:
        ahead = timedelta(hours=int(offset[1:3]), minutes=int(offset[3:]))
        moment = moment - ahead if offset[0] == "+" else moment + ahead
    return moment.strftime("%Y%m%d%H%M%S.%f").rjust(21, "0")


def _matches(vr: str, stored: str, key: str) -> bool:
    if is_universal(key):
        return True
    if not stored:
        return False
    if vr == "PN":
        return _person_matches(_folded(stored), _folded(key))
    if vr in RANGES:
        low, high = bounds("", vr, key)
        return low <= _interval(vr, stored)[0] <= high
    if vr in NUMBERS:
        return stored == str(int(key))
    return bool(_pattern(key.strip()).fullmatch(stored))


def _person_matches(stored: str, key: str) -> bool:
    """Compare component groups: those that the key gives, or, if it gives one alone, any."""
    groups, wanted = _groups(stored), _groups(key)
    if len(wanted) == 1:
        return any(group and _pattern(wanted[0]).fullmatch(group) for group in groups)
    groups += [""] * (len(wanted) - len(groups))
    return all(_pattern(want).fullmatch(group) for want, group in zip(wanted, groups, strict=False) if want)


def _groups(name: str) -> list[str]:
    return [re.sub(r" *\^ *", "^", group).rstrip("^ ").lstrip() for group in name.split("=")]


@lru_cache(maxsize=4096)
def _folded(name: str) -> str:
    """Return the name without case and accents; full-width and compatibility letters become plain ones."""
    if name.isascii():
        return name.lower()
    plain = "".join(c for c in unicodedata.normalize("NFKD", name) if ord(c) not in _MARKS)
    return unicodedata.normalize("NFC", plain).casefold()


def _words(name: str) -> list[str]:
    return re.split(r"[\s^=,*\\]+", _folded(name).strip(" ^=,*\\"))


@lru_cache(maxsize=256)
def _pattern(key: str) -> re.Pattern[str]:
    """Translate wildcards. An asterisk is atomic: it takes the shortest run that lets the next piece follow
    and is not tried again, which loses no match and keeps the time linear.
    """
    pieces = [re.escape(piece).replace(r"\?", ".") for piece in re.split(r"\*+", key)]
    if len(pieces) == 1:
        return re.compile(pieces[0], re.DOTALL)
    first, *middle, last = pieces
    inner = "".join(f"(?>.*?{piece})" for piece in middle)
    return re.compile(f"{first}{inner}.*{last}", re.DOTALL)
