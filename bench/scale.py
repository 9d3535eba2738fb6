"""The time, the work and the bytes of a step in several processes on this machine.

    python bench/scale.py    # some minutes of all cores; writes scale.json

Every process has one thread. On two cores only one and two processes have a core each; with
more, work (seconds of processor time) is what can be compared, and not the time on the clock.
Bytes are those of the loopback device, which nothing else should use meanwhile.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist

from simclr_nb.core import describe_machine, generator, write_json
from simclr_nb.distributed import accumulate_together, join_processes, share_rows, world
from simclr_nb.resnet import ProjectionHead, SimCLR, init_weights, resnet_tiny

HERE = Path(__file__).resolve().parent
PROCESSES = (1, 2, 4, 8)
VIEWS, MICRO_BATCH, SIZE, WIDTH, Z = 1024, 64, 32, 16, 128 # views, pixels, channels, numbers
ROUNDS = 5


def sent_bytes(): # by all processes, over the loopback device
    for line in Path('/proc/net/dev').read_text().splitlines():
        name, _, numbers = line.partition(':')
        if name.strip() == 'lo':
            return int(numbers.split()[8])
    return 0


def meet(): # returns when all processes are here
    if world()[1] > 1:
        dist.barrier()


def measured(act):
    "Seconds on the clock, of this process's work, and bytes of all, each a median"
    seconds, work, sent = [], [], []
    for k in range(ROUNDS + 1): # the first is a warm-up
        meet()
        before, clock, start = sent_bytes(), time.process_time(), time.perf_counter()
        act()
        worked = time.process_time() - clock
        meet()
        if k:
            seconds.append(time.perf_counter() - start)
            work.append(worked)
            sent.append(sent_bytes() - before)
    return dict(seconds=statistics.median(seconds), work=statistics.median(work),
                bytes=statistics.median(sent))


def network_constants(): # of these processes
    rows = 2**22
    numbers, short = torch.zeros(world()[1] * rows, 1), torch.zeros(1)
    owned = [slice(k * rows, (k + 1) * rows) for k in range(world()[1])]
    def gather():
        share_rows(numbers, owned)
    many = 200
    def say_hello():
        for _ in range(many):
            dist.all_reduce(short)
    seconds = measured(gather)['seconds']
    received = numbers[rows:].nbytes # by every process
    hellos = measured(say_hello)['seconds']
    return dict(bytes_a_second=received / seconds, latency=hellos / many)


def work(path):
    torch.set_num_threads(1)
    with join_processes('cpu', minutes=5.):
        model = SimCLR(resnet_tiny(width=WIDTH), ProjectionHead(8 * WIDTH, 8 * WIDTH, Z))
        init_weights(model, generator(0, 'weights'))
        views = torch.rand(VIEWS, 3, SIZE, SIZE, generator=generator(0, 'views'))
        found = {}
        for reduction in ('tree', 'fast'):
            found[reduction] = measured(
                lambda: accumulate_together(model, views, .5, MICRO_BATCH, 1, reduction))
        found['weights'] = sum(p.numel() for p in model.parameters())
        rank, processes = world()
        if processes > 1:
            found |= network_constants()
            everybody = [None] * processes
            dist.all_gather_object(everybody, found)
            for reduction in ('tree', 'fast'):
                found[reduction]['work'] = sum(each[reduction]['work'] for each in everybody)
        if rank == 0:
            write_json(path, found)



def run(processes):
    with tempfile.TemporaryDirectory() as folder:
        starter = [sys.executable]
        if processes > 1:
            starter += ['-m', 'torch.distributed.run', '--standalone',
                        f'--nproc-per-node={processes}']
        subprocess.run([*starter, __file__, '--worker', f'{folder}/found.json'], check=True,
                       env=os.environ | dict(OMP_NUM_THREADS='1'))
        return json.loads(Path(f'{folder}/found.json').read_text())


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--worker', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return work(args.worker)
    found = {}
    for processes in PROCESSES:
        found[str(processes)] = run(processes)
        tree, fast = (found[str(processes)][name] for name in ('tree', 'fast'))
        print(f'{processes} processes: {tree["seconds"]:.2f} s, work {tree["work"]:.2f} s, '
              f'{tree["bytes"] / 1e6:.1f} MB by tree, {fast["bytes"] / 1e6:.1f} MB fast')
        write_json(HERE / 'scale.json', dict(
            command='python bench/scale.py', machine=describe_machine(torch.device('cpu')),
            settings=dict(views=VIEWS, micro_batch=MICRO_BATCH, size=SIZE, width=WIDTH, z=Z),
            processes=found))


if __name__ == '__main__':
    main()
