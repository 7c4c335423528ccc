"""How damaged and hostile inputs end: 100,000 mutated configurations and headers, outcomes, slowest case, peak memory.

    .venv-test/bin/python benchmarks/fuzz.py [CASES]

A case that ends in an exception that is not ours counts as a failure: it is listed with the command that makes it
again, and the exit code is 1.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from mutants import KINDS, outcome

CASES = 100_000
CHUNK = 2_000
MOST_SHOWN = 30
Result = tuple[str, Counter[str], float, int, int, list[str]]


def chunk(task: tuple[str, int, int]) -> Result:
    """Run one range of seeds in a worker; return outcomes, the slowest case and the memory it grew by. [s, B]"""
    kind, start, end = task
    outcomes: Counter[str] = Counter()
    failures: list[str] = []
    slowest, which = 0.0, start
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in range(start, end):
        data = KINDS[kind][0](seed)
        began = time.perf_counter()
        try:
            outcomes[outcome(kind, data)] += 1
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what we look for
            outcomes["failure"] += 1
            failures.append(f"python tests/mutants.py {kind} {seed}: {type(error).__name__}: {error}"[:200])
        took = time.perf_counter() - began
        if took > slowest:
            slowest, which = took, seed
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return kind, outcomes, slowest, which, 1024 * grown, failures


def main() -> int:
    """Run all kinds and print one row for each; return 1 when a case failed."""
    cases = int(sys.argv[1]) if len(sys.argv) > 1 else CASES
    share = {"config": cases * 6 // 10, "safetensors": cases * 2 // 10, "gguf": cases - cases * 8 // 10}
    tasks = [(kind, at, min(at + CHUNK, share[kind])) for kind in KINDS for at in range(0, share[kind], CHUNK)]
    found: dict[str, list[Result]] = {kind: [] for kind in KINDS}
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for result in pool.map(chunk, tasks):
            found[result[0]].append(result)
    for kind, results in found.items():
        outcomes = sum((result[1] for result in results), Counter())
        _, _, slowest, which, _, _ = max(results, key=lambda result: result[2])
        grown = max(result[4] for result in results)
        print(f"{kind}: {outcomes.total():,} cases; slowest {1000 * slowest:.0f} ms (seed {which}); "
              f"a worker grew by {grown / 2**20:.0f} MiB at most over {CHUNK:,} cases")  # fmt: skip
        for name, count in outcomes.most_common():
            print(f"  {count:>8,}  {name}")
    failures = [text for results in found.values() for result in results for text in result[5]]
    print("\n".join(failures[:MOST_SHOWN]))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
