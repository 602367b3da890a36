"""Which objects a receiver gets, and how its segmentation is written (``peers.toml``)."""

from typing import Literal

from gpnet_node.section import Section


class SegForm(Section):
    """How a segmentation is written, which receivers differ in.

    ``labelmap``: one frame a slice with the segments' numbers, instead of one bit per segment.
    ``empty_frames``: slices without a structure too. ``padded_columns``: empty columns are added on the right
    up to a multiple of 8.
    """

    labelmap: bool = False
    empty_frames: bool = True
    padded_columns: bool = False

    @property
    def name(self) -> str:
        """What sets it apart from the usual one, for names: empty, or ``-labelmap-nonempty``."""
        parts = {
            "labelmap": self.labelmap, "nonempty": not self.empty_frames, "padded": self.padded_columns
        }  # fmt: skip
        return "".join(f"-{name}" for name, holds in parts.items() if holds)


BINARY = SegForm()
# What can be written of a series; what each is for stands in ae_config/peers.toml.
ObjectKind = Literal["seg", "sr", "rtstruct", "stl", "mr", "capture", "pdf", "refusal", "rejection"]


class ResultProfile(Section):
    """Which objects a receiver gets, and how its segmentation is written."""

    objects: tuple[ObjectKind, ...] = ("seg", "sr")
    seg: SegForm = BINARY


USUAL_PROFILE = ResultProfile()
