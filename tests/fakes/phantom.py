"""Simulated films: nothing is written, and `simulate` itself says what must come out."""

from pathlib import Path

from fakes._fake import Fake
from torchxrayvision.phantom import simulate

N, SIZE, SEED = 6, 32, 3


def build(folder: Path) -> Fake:
    """Six films of three patients, who have one, two and three of them, in three views."""
    films = {f"B/{SEED}/{i:06d}": simulate(i, seed=SEED, size=SIZE, site="B") for i in range(N)}
    return Fake(
        kwargs={"n": N, "seed": SEED, "size": SIZE, "site": "B"},
        labels={name: dict(film.labels) for name, film in films.items()},
        default=list(films),
        views={name: film.view for name, film in films.items()},
        patients={name: film.patient.id for name, film in films.items()},
        ages={name: film.patient.age_years for name, film in films.items()},
        sexes={name: film.patient.sex for name, film in films.items()},
        masks={name: dict(film.masks) for name, film in films.items() if film.masks},
        semantic={name: dict(film.anatomy) for name, film in films.items()},
        semantic_kwargs={"anatomy_masks": True},
    )


BUILDERS = {"Phantom_Dataset": build}
