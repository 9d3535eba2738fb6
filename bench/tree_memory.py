"""How much memory the gradients of micro-batches take while they are added, by the tree and by
a running sum, in one process.

    OMP_NUM_THREADS=1 python bench/tree_memory.py    # two minutes; writes tree_memory.json

Each figure is the peak of a process of its own, less the peak of one that only holds the model
and one gradient, as a multiple of the memory of the weights. On Linux.
"""
import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

from simclr_nb.core import describe_machine, generator, write_json
from simclr_nb.distributed import accumulate_together

HERE = Path(__file__).resolve().parent
WEIGHTS = 2**25 # 128 MiB, beside which embeddings and activations are small
COUNTS = (1, 2, 4, 8, 16, 32, 64) # of micro-batches


class ManyWeights(nn.Module): # with next to no activations
    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.ones(WEIGHTS))

    def forward(self, x):
        return x + self.weights.mean()


def measure(count, reduction): # prints the peak of this process in bytes
    model = ManyWeights()
    if count:
        rows = max(2, 2 * count)
        views = torch.rand(rows, 8, generator=generator(0, 'views'))
        accumulate_together(model, views, .5, rows // count, 1, reduction)
    else:
        model.weights.grad = torch.zeros_like(model.weights)
    print(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def peak(count, reduction):
    done = subprocess.run([sys.executable, __file__, '--worker', str(count), reduction],
                          capture_output=True, text=True, check=True)
    return int(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--worker', nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return measure(int(args.worker[0]), args.worker[1])
    alone = peak(0, 'fast')
    found = {reduction: {str(count): round((peak(count, reduction) - alone) / (4 * WEIGHTS), 2)
                         for count in COUNTS} for reduction in ('tree', 'fast')}
    print(json.dumps(found))
    write_json(HERE / 'tree_memory.json', dict(
        command='python bench/tree_memory.py', machine=describe_machine(torch.device('cpu')),
        weights=WEIGHTS, more_than_model_and_gradient=found))


if __name__ == '__main__':
    main()
