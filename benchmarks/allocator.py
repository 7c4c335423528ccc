"""How fast the simulated allocator is: events a second for a mixed program, with and without expandable segments.

    .venv-test/bin/python benchmarks/allocator.py [ALLOCATIONS]

Sizes from 512 B to 56 MiB; two thousand are alive at any time and die in random order, which is harder on the search
than a training step. Processor time, best of five.
"""

from __future__ import annotations

import random
import sys
import time

from vramfit.trace.allocator import CachingAllocator
from vramfit.trace.allocator_block import Block
from vramfit.trace.allocator_config import parse_config

ALLOCATIONS = 100_000
ALIVE = 2_000
SIZES = (512, 4096, 100_000, 8 * 2**20, 32 * 2**20, 56 * 2**20)
CONFIGS = ("", "expandable_segments:True", "max_split_size_mb:64,roundup_power2_divisions:8")
REPEATS = 5


def events_per_second(text: str, allocations: int) -> float:
    """Run the program once."""
    draw = random.Random(1)  # noqa: S311 - the same program every time
    sizes = [draw.choice(SIZES) for _ in range(allocations)]
    victims = [draw.randrange(ALIVE) for _ in range(allocations)]
    cache, held = CachingAllocator(parse_config(text)), list[Block]()
    began = time.process_time()
    for size, victim in zip(sizes, victims, strict=True):
        held.append(cache.malloc(size))
        if len(held) > ALIVE:
            cache.free(held.pop(victim))
    return (2 * allocations - len(held)) / (time.process_time() - began)


def main() -> None:
    """Print one line for each configuration."""
    allocations = int(sys.argv[1]) if len(sys.argv) > 1 else ALLOCATIONS
    for text in CONFIGS:
        best = max(events_per_second(text, allocations) for _ in range(REPEATS))
        print(f"{text or 'defaults':55} {best:10,.0f} events/s")


if __name__ == "__main__":
    main()
