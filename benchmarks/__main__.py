"""Print speeds of this machine, next to its peak, the naive implementation or the packages used otherwise.

python -m benchmarks            everything, about ten minutes on two cores
python -m benchmarks sampling   one part
"""

import sys
from functools import partial

import torch

from . import cpu, gpu, peers

PARTS = {**cpu.PARTS, "gpu": gpu.run, **{name: partial(peers.run, name) for name in peers.PARTS}}


def main() -> None:
    if unknown := set(sys.argv[1:]) - set(PARTS):
        sys.exit(f"no benchmark called {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for name in sys.argv[1:] or PARTS:
        PARTS[name]()


if __name__ == "__main__":
    main()
