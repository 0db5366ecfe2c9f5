"""Run the benchmarks named on the command line, by default all of them, and write what they found."""

import argparse
import importlib
import os
import sys
from pathlib import Path

SUBJECTS = (
    "training",
    "fleets",
    "bf16",
    "interpolation",
    "curvature",
    "sharpness",
    "noise",
    "monitor",
    "ranks",
    "ghost_batch_norm",
    "augmentation",
    "reports",
    "startup",
)
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(SUBJECTS)}; by default all")
    parser.add_argument(
        "--quick", action="store_true", help="only see that they run; writes nothing unless --out is set"
    )
    parser.add_argument("--out", type=Path, help=f"folder for the JSON files; by default {RESULTS}")
    chosen = parser.parse_args()
    if unknown := [name for name in chosen.names if name not in SUBJECTS]:
        parser.error(f"there is no benchmark {unknown[0]!r}; choose from {', '.join(SUBJECTS)}")
    # One thread, for both sides and for child processes: small networks do not gain from more.
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    import torch

    from benchmarks.record import Record

    torch.set_num_threads(1)
    out = chosen.out or (None if chosen.quick else RESULTS)
    for name in chosen.names or SUBJECTS:
        subject = importlib.import_module(f"benchmarks.{name}")
        record = Record(name, subject.__doc__ or "", quick=chosen.quick)
        print(f"{name}: {record.headline}", flush=True)
        for entry in subject.entries(quick=chosen.quick):
            print(f"  {entry}", flush=True)
            record.entries.append(entry)
            if out:  # after each entry: what was measured is kept when the rest is interrupted
                record.write(out)
        if out:
            print(f"  written to {record.write(out)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
