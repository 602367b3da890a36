"""Label maps that outlines and surfaces find hard: holes, specks, touching corners, parts at the edge."""

import numpy as np

from tests.pallida import Head


def awkward(head: Head) -> Head:
    """The drawn head with a hole, a cavity, specks and corners that touch; every structure has one of them.

    GPe left: a hole through two slices, and in one of them an island in it. GPi left: besides its body one
    voxel in the first corner of the volume and one in the last. GPe right: a single voxel, nothing else. GPi
    right: besides its body three voxels that touch at corners or edges only, and a line one voxel wide.
    """
    labels = head.labels.labels.copy()
    slices, rows, columns = np.nonzero(labels == 1)
    middle = int(np.median(slices))
    row, column = int(np.median(rows)), int(np.median(columns[slices == middle]))
    labels[middle : middle + 2, row - 3 : row + 4, column - 3 : column + 4] = 1
    labels[middle : middle + 2, row - 2 : row + 3, column - 2 : column + 3] = 0
    labels[middle, row, column] = 1
    labels[labels == 3] = 0
    labels[middle, 3, 5] = 3
    labels[0, 0, 0] = labels[-1, -1, -1] = 2
    labels[2, 4, 4] = labels[2, 5, 5] = labels[3, 6, 5] = 4
    labels[4, 4, 8:16] = 4
    return head.relabelled(labels)


def without(head: Head, number: int) -> Head:
    """The same head, one of its structures empty."""
    return head.relabelled(np.where(head.labels.labels == number, 0, head.labels.labels).astype(np.uint8))
