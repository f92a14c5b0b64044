"""What a training step asks of a GPU, in every setup of the tests, as JSON: python -m tests.benchmarks.launches.

It needs no GPU, see tests/voctrain/fake_cuda.py. launches are operations on the device, each of one kernel or more;
cpu_calls are operations on the CPU between them, which delay the next launch.
"""

import argparse
import json
import tempfile
from pathlib import Path

from tests.voctrain.conftest import random_data
from tests.voctrain.fake_cuda import counted_steps
from tests.voctrain.setups import SETUPS, data_of, save_victim, small


def main() -> None:
    parser = argparse.ArgumentParser(description="What a training step asks of a GPU; prints JSON.")
    parser.add_argument("setups", nargs="*", metavar="NAME", help="of SETUPS in tests/voctrain/setups.py (all)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        victim = Path(folder) / "victim.pt"
        save_victim(victim, random_data())
        table = {}
        for name in args.setups or SETUPS:
            task, options = SETUPS[name]
            module, config = small(task, victim, **({"precision": "bfloat16"} | options))
            data = data_of(name, random_data(size=config.image_size))
            counts = counted_steps(module.train, config, data)[0][-1]
            table[name] = {
                "launches": counts.launches.total(),
                "cpu_calls": counts.cpu_calls.total(),
                "copies": len(counts.copies),
                "syncs": len(counts.syncs),
                "most": dict(counts.launches.most_common(5)),
            }
    print(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
