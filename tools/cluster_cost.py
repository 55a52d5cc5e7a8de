"""What a run of millions of images costs on a cluster: arithmetic from measured figures.

    python tools/cluster_cost.py                              # the table of docs/cluster.md
    python tools/cluster_cost.py --rate 21 --cpus 32 --price 1.4 --nodes 1 8 64

Give what you measured: `xrv predict` on one image and on some hundred, with OMP_NUM_THREADS=1 and
--workers 1, and the processor time that the shell's `time` adds up; the difference by the images is
one over the rate.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Figures that docs/cluster.md says the origin of; times in seconds."""

    rate: float = 10.0  # images per second and CPU, reading included
    image_bytes: float = 0.82e6  # of a file
    start: float = 15.0  # from the command to the first rows: Ray, torch, weights
    part: float = 0.005  # of the calling process, for a part of 512 images
    listing: float = 19.0  # of the calling process, for a million names in a list
    table: float = 18.8  # of the calling process, for a million rows of Parquet
    images_a_part: int = 512


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a run comes to."""

    nodes: int
    computing: float  # hours, all nodes at work
    alone: float  # hours, the calling process lists or writes and the nodes are free
    bandwidth: float  # GB/s that the storage has to give
    node_hours: float
    driver: float  # share of one CPU that the calling process takes
    price: float


def cost(nodes: int, images: float, cpus: int, price: float, measured: Measured) -> Cost:
    """Cost of a run on so many nodes.

    Args:
        nodes: How many.
        images: How many.
        cpus: CPUs of a node, an actor on each.
        price: Of a node for an hour.
        measured: Figures of the machine.
    """
    rate = nodes * cpus * measured.rate
    seconds = measured.start + images / rate
    # The last part of each actor ends up to the length of a part after the others.
    seconds += min(measured.images_a_part / measured.rate, images / rate / 8)
    node_hours = nodes * seconds / 3600
    return Cost(
        nodes=nodes,
        computing=seconds / 3600,
        alone=images / 1e6 * (measured.listing + measured.table) / 3600,
        bandwidth=rate * measured.image_bytes / 1e9,
        node_hours=node_hours,
        driver=rate / measured.images_a_part * measured.part,
        price=node_hours * price,
    )


def duration(hours: float) -> str:
    """Hours as a reader says them."""
    return f"{hours:.1f} h" if hours >= 2 else f"{hours * 60:.0f} min"


def table(costs: list[Cost]) -> str:
    """A Markdown table."""
    lines = [
        "| nodes | nodes at work | list and table | whole run | storage gives | node hours | price | driver |",  # noqa: E501
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for found in costs:
        cells = (
            found.nodes, duration(found.computing), duration(found.alone),
            duration(found.computing + found.alone), f"{found.bandwidth:.2f} GB/s",
            f"{found.node_hours:.1f}", f"{found.price:.2f}", f"{found.driver:.1%} of a CPU",
        )  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in vars(Measured()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    parser.add_argument("--images", type=float, default=1e7)
    parser.add_argument("--cpus", type=int, default=16, help="of a node")
    parser.add_argument("--price", type=float, default=0.80, help="of a node for an hour")
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 16, 256])
    given = parser.parse_args(arguments)
    measured = Measured(**{name: getattr(given, name) for name in vars(Measured())})
    print(table([cost(n, given.images, given.cpus, given.price, measured) for n in given.nodes]))


if __name__ == "__main__":
    main()
