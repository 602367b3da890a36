from pathlib import Path

import numpy as np
from PIL import Image

from gpnet_node.model.evaluation.box_plot import draw_box_plot


def test_the_figure_has_a_colour_for_every_method(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    dice = {
        structure: {method: list(rng.uniform(0.6, 0.9, 20)) for method in ("GP-net", "CIT168 atlas")}
        for structure in ("GPe", "GPi")
    }

    draw_box_plot(dice, tmp_path / "dice.png", title="43 images of 6 people", caption="Drawn images.")

    picture = np.asarray(Image.open(tmp_path / "dice.png").convert("RGB")).astype(int)
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
        left, right = np.array_split((np.abs(picture - colour).sum(-1) < 30), 2, axis=1)
        assert left.sum() > 200
        assert right.sum() > 200
