"""Lines of pixels around the structures of one slice, and the word that is burned in beside them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpnet_node.errors import InputError
from gpnet_node.model.card import ModelCard

Mask = NDArray[np.bool_]

WORD = "RESEARCH"
# Five columns and seven rows each; drawn here, so that no library's font decides what is burned in.
_LETTERS = {
    "R": ("1111.", "1...1", "1...1", "1111.", "1.1..", "1..1.", "1...1"),
    "E": ("11111", "1....", "1....", "1111.", "1....", "1....", "11111"),
    "S": (".1111", "1....", "1....", ".111.", "....1", "....1", "1111."),
    "A": (".111.", "1...1", "1...1", "11111", "1...1", "1...1", "1...1"),
    "C": (".1111", "1....", "1....", "1....", "1....", "1....", ".1111"),
    "H": ("1...1", "1...1", "1...1", "11111", "1...1", "1...1", "1...1"),
}
# Letters grow with the matrix: 14 pixels high in one of 512.
_PIXELS_A_SIZE = 256
# The word keeps this far from every structure: the two lines, and a pixel that tells them apart.
_CLEAR_PIXELS = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Lettering:
    """A word in a box: ``letters``, (rows, columns), and where its first pixel lies in the image."""

    letters: Mask
    row: int
    column: int

    @property
    def box(self) -> tuple[slice, slice]:
        """Rows and columns that it covers."""
        rows, columns = self.letters.shape
        return slice(self.row, self.row + rows), slice(self.column, self.column + columns)


def border_lines(labels: NDArray[np.uint8], card: ModelCard) -> tuple[Mask, Mask]:
    """The bright and the dark line around each structure of one slice, (rows, columns) each.

    Both lie outside what they surround: the bright one on the pixels that share an edge with the structure,
    the dark one on the next. So the structure's border is the inner edge of the bright line, to the pixel,
    and none of its own tissue is hidden. Where two structures touch, the lines lie in the one that the card
    expects to be larger: GPi, the smaller and the target, is never painted over.
    """
    bright, dark, shown = (np.zeros(labels.shape, bool) for _ in range(3))
    for structure in sorted(card.structures, key=lambda it: (sum(it.volume_range_mm3), it.number)):
        inside = labels == structure.number
        if not inside.any():
            continue
        shown |= inside
        first = _grown(inside)
        bright |= first & ~shown
        dark |= _grown(first) & ~first & ~shown
    return bright, dark & ~bright


def place_word(occupied: Mask) -> Lettering:
    """RESEARCH as large as the matrix asks for, in the free place that is nearest to a corner.

    ``occupied``: pixels of structures in any slice; it covers neither them nor the lines around them. Raises
    InputError where there is no such place.
    """
    for _ in range(_CLEAR_PIXELS):
        occupied = _grown(occupied)
    for size in range(max(1, min(occupied.shape) // _PIXELS_A_SIZE), 0, -1):
        letters = _word(size)
        rows, columns = np.nonzero(_free(occupied, letters.shape))
        if rows.size:
            height, width = np.array(occupied.shape) - letters.shape
            off = np.minimum(rows, height - rows) + np.minimum(columns, width - columns)
            best = int(off.argmin())
            return Lettering(letters=letters, row=int(rows[best]), column=int(columns[best]))
    rows_and_columns = " x ".join(map(str, occupied.shape))
    raise InputError(f"an image of {rows_and_columns} pixels has no room for {WORD} beside the pallida")


def _grown(mask: Mask) -> Mask:
    """With all pixels that share an edge with one of it."""
    grown = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:-1] |= mask[1:]
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    return grown


def _word(size: int) -> Mask:
    """The letters within a margin, each of their pixels ``size`` image pixels wide."""
    rows = [".".join(_LETTERS[letter][row] for letter in WORD) for row in range(7)]
    letters = np.array([[mark == "1" for mark in row] for row in rows])
    return np.kron(np.pad(letters, 1), np.ones((size, size))).astype(bool)


def _free(occupied: Mask, size: tuple[int, ...]) -> Mask:
    """Where the first pixel of a box of that size may lie; empty where the box is larger than the image."""
    rows, columns = size
    if rows > occupied.shape[0] or columns > occupied.shape[1]:
        return np.zeros((0, 0), bool)
    total = np.pad(occupied.astype(np.int64), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    count = total[rows:, columns:] - total[:-rows, columns:] - total[rows:, :-columns]
    return np.asarray(count + total[:-rows, :-columns] == 0)
