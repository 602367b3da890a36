"""What tissues are made of at 7T, and how their magnetisation decays: one drawn person.

A tissue is water, T1, lipid and iron. Where the figures come from:

* R2 = 9 + (0.9 + 2e4 iron + 5.7 lipid) B0 (1/s, mass fractions), R2 measured at 3 T and 7 T: "Dependence of
  brain-tissue R2 on MRI field strength" (abstract). It gives 44 ms for cortex; Cox 2010 measured 46-47 ms.
* R2* - R2 grows with iron as steeply as R2 does, from 2.2 /s at 3 T (Gelman 1999, abstract), scaled to 7T. It
  gives 31 ms for cortex; Cohen-Adad 2012 measured 32.2 ms.
* Iron of pallidum, putamen and caudate by age, mg per 100 g: Hallgren & Sourander 1958. The curves were
  checked against the three values at 30 years that public code on iron in the brain states.
* T1 of white matter, cortex, putamen and caudate: Wright 2008, doi 10.1007/s10334-008-0104-8.
* Water of white and grey matter: Oros-Peusquens 2019, doi 10.3389/fneur.2019.01333.

All else is an estimate: other tissues' T1, water, iron and lipid, the spread between people beyond that of
water, how GPi differs from GPe, and how much of the medial lamina is fibres.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpnet_node.model.drawing.scene import Scene
from gpnet_node.model.drawing.tissue import HEAD_TISSUE_OFFSET, TISSUES, Tissue

FIELD_TESLA = 7.0


@dataclass(frozen=True, kw_only=True)
class Composition:
    """Mass fractions of water and lipid, T1 at 7T, and iron by age: rise x (1 - exp(-rate x age)) + birth."""

    water: float
    t1_ms: float
    lipid: float
    rise: float  # mg per 100 g
    rate: float  # a year
    birth: float = 0.3

    def iron(self, age_years: float) -> float:
        """mg of non-haem iron per 100 g of fresh tissue."""
        return self.rise * (1 - float(np.exp(-self.rate * age_years))) + self.birth


COMPOSITION: dict[Tissue, Composition] = {
    Tissue.WHITE_MATTER: Composition(water=0.691, t1_ms=1126, lipid=0.16, rise=4.0, rate=0.10),
    Tissue.CORTEX: Composition(water=0.837, t1_ms=1939, lipid=0.06, rise=3.2, rate=0.04),
    Tissue.THALAMUS: Composition(water=0.77, t1_ms=1450, lipid=0.10, rise=4.6, rate=0.09),
    Tissue.CAUDATE: Composition(water=0.82, t1_ms=1684, lipid=0.06, rise=9.66, rate=0.05, birth=0.33),
    Tissue.PUTAMEN: Composition(water=0.82, t1_ms=1644, lipid=0.06, rise=14.62, rate=0.04, birth=0.46),
    Tissue.GPE: Composition(water=0.76, t1_ms=1250, lipid=0.10, rise=21.41, rate=0.09, birth=0.37),
    Tissue.LIMBIC: Composition(water=0.83, t1_ms=1900, lipid=0.06, rise=3.0, rate=0.05),
    Tissue.VENTRAL_DIENCEPHALON: Composition(water=0.74, t1_ms=1350, lipid=0.12, rise=6.0, rate=0.05),
    Tissue.BRAINSTEM: Composition(water=0.72, t1_ms=1250, lipid=0.13, rise=3.0, rate=0.05),
    Tissue.STN: Composition(water=0.76, t1_ms=1300, lipid=0.10, rise=14.0, rate=0.05),
    Tissue.SUBSTANTIA_NIGRA: Composition(water=0.77, t1_ms=1300, lipid=0.09, rise=17.5, rate=0.05),
    Tissue.RED_NUCLEUS: Composition(water=0.75, t1_ms=1250, lipid=0.11, rise=18.0, rate=0.05),
    Tissue.INTERNAL_CAPSULE: Composition(water=0.70, t1_ms=1150, lipid=0.14, rise=2.5, rate=0.10),
    Tissue.CEREBELLAR_CORTEX: Composition(water=0.83, t1_ms=1850, lipid=0.06, rise=3.5, rate=0.05),
    Tissue.ZONA_INCERTA: Composition(water=0.74, t1_ms=1300, lipid=0.12, rise=8.0, rate=0.05),
    Tissue.CLAUSTRUM: Composition(water=0.82, t1_ms=1700, lipid=0.06, rise=6.0, rate=0.05),
    Tissue.ANTERIOR_COMMISSURE: Composition(water=0.70, t1_ms=1150, lipid=0.14, rise=3.0, rate=0.10),
    Tissue.OPTIC_TRACT: Composition(water=0.72, t1_ms=1200, lipid=0.13, rise=3.0, rate=0.10),
}
# What is no brain tissue: water, T1 (ms), R2 (1/s).
_FLUID = (1.0, 4400.0, 1.0)
_BLOOD = (0.2, 2100.0, 60.0)  # most of it flows out of the slice before its echo
_AROUND = (  # fat, muscle, bone, skin, the eyes
    (0.60, 450.0, 20.0),
    (0.75, 1700.0, 40.0),
    (0.08, 1000.0, 150.0),
    (0.60, 1500.0, 35.0),
    (0.97, 4000.0, 4.0),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Matter:
    """One person's tissues; arrays by tissue number."""

    water: NDArray[np.float64]
    t1_ms: NDArray[np.float64]
    r2_per_s: NDArray[np.float64]
    r2star_per_s: NDArray[np.float64]


def draw_matter(rng: np.random.Generator, scene: Scene) -> Matter:
    """A person of the scene's age. What is drawn does not depend on the scene, only what is made of it."""
    made = np.zeros((TISSUES, 4))  # water, T1, lipid, iron
    made[:, 1] = 1000.0
    overall = 1 + 0.10 * float(_spread(rng, 1)[0])
    for tissue, kind in COMPOSITION.items():
        parts = [kind.water, kind.t1_ms, kind.lipid, kind.iron(scene.age_years) * overall]
        made[tissue] = parts * (1 + np.array([0.018, 0.06, 0.08, 0.07]) * _spread(rng, 4))
    inner = [1, rng.uniform(0.96, 1.0), rng.uniform(1.0, 1.3), rng.uniform(0.85, 1.03)]
    made[Tissue.GPI] = made[Tissue.GPE] * (inner if scene.segments_differ else 1)
    fibres = rng.uniform(0.35, 0.70)
    made[Tissue.LAMINA] = made[Tissue.GPE] * (1 - fibres) + made[Tissue.WHITE_MATTER] * fibres
    iron_rate = FIELD_TESLA * 2e4 * 1e-5 * made[:, 3]
    r2 = 9 + FIELD_TESLA * (0.9 + 5.7 * made[:, 2]) + iron_rate
    around = rng.choice(len(_AROUND), TISSUES - HEAD_TISSUE_OFFSET, p=[0.30, 0.30, 0.25, 0.10, 0.05])
    others: dict[int, tuple[float, float, float]] = {Tissue.CSF: _FLUID, Tissue.VESSEL: _BLOOD}
    others |= {HEAD_TISSUE_OFFSET + k: _AROUND[kind] for k, kind in enumerate(around)}
    for number, (water, t1_ms, rate) in others.items():
        made[number, :2] = water, t1_ms
        r2[number] = rate
    r2star = r2 + iron_rate + 2.2 * FIELD_TESLA / 3
    return Matter(water=made[:, 0], t1_ms=made[:, 1], r2_per_s=r2, r2star_per_s=r2star)


def _spread(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    drawn: NDArray[np.float64] = rng.standard_normal(count).clip(-2, 2)
    return drawn
