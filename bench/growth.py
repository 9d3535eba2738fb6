"""What grows with what: time and memory of an update, by batch size, micro-batch, images of the
set and width of the network.

    python bench/growth.py          # twenty minutes of all cores; growth.json
    python bench/growth.py width    # only this table; what is stored is not measured again

Every point is a process of its own: a tiny ResNet, views of 32x32 pixels, float32, two updates
to warm up, then the median time of at least three more, and the most memory that the process
ever had beyond what it had once PyTorch was there. The images are noise.
"""
import json
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch

from long_runs import keep_result, need, read_results
from simclr_nb.core import describe_machine, generator, keep_freed_memory
from simclr_nb.data import ImageSet
from simclr_nb.runs import TrainConfig
from simclr_nb.train import prepare, step_views, update

RESULTS = Path(__file__).resolve().parent / 'growth.json'
BASE = dict(batch=256, micro_batch=None, width=16, images=10_000)
TABLES = {
    'batch': [dict(batch=batch) for batch in (64, 128, 256, 512, 1024, 2048)],
    'batch in micro-batches of 256':
        [dict(batch=batch, micro_batch=256) for batch in (256, 512, 1024, 2048, 4096, 8192)],
    'micro-batch': [dict(batch=1024, micro_batch=size)
                    for size in (8, 16, 32, 64, 128, 256, 512, 1024)],
    'images': [dict(images=images) for images in (5_000, 10_000, 20_000, 50_000)],
    'width': [dict(width=width) for width in (16, 32, 64, 128)],
}
LEAST_UPDATES, LEAST_SECONDS = 3, 4.


def settings_of(point):
    known = BASE | point
    return TrainConfig(batch=known['batch'], micro_batch=known['micro_batch'],
                       width=known['width'], temperature=.1, precision='float32',
                       device='cpu', compile=False, epochs=1000)


def memory_now(): # bytes
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith('VmRSS'):
            return int(line.split()[1]) * 1024


def measure(point):
    "Seconds of an update and bytes of memory, of this process"
    keep_freed_memory()
    # PyTorch's own memory, before anything of ours
    torch.conv2d(torch.rand(8, 3, 8, 8), torch.rand(4, 3, 3, 3))
    before = memory_now()
    count = (BASE | point)['images']
    noise = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8,
                          generator=generator(0, 'growth'))
    training = prepare(settings_of(point), ImageSet(noise))
    seconds, begin = [], None
    for step in range(training.total_steps):
        start = time.perf_counter()
        update(training, step_views(training, step), step)
        if step < 2: # the first are for warming up
            begin = time.perf_counter()
            continue
        seconds.append(time.perf_counter() - start)
        if len(seconds) >= LEAST_UPDATES and time.perf_counter() - begin > LEAST_SECONDS:
            break
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return dict(seconds=statistics.median(seconds), bytes=peak - before, updates=len(seconds))


def in_process(point):
    command = [sys.executable, __file__, '--point', json.dumps(point)]
    found = subprocess.run(command, capture_output=True, text=True)
    if found.returncode:
        raise RuntimeError(f'{point} failed: {found.stderr.strip()[-800:]}')
    return json.loads(found.stdout.strip().splitlines()[-1])


def name_of(point):
    return ', '.join(f'{setting} {value}' for setting, value in point.items())


def main(words):
    if words[:1] == ['--point']:
        print(json.dumps(measure(json.loads(words[1]))))
        return
    for table in words or TABLES:
        for point in need(table, TABLES, 'table'):
            settings = asdict(settings_of(point)) | dict(images=(BASE | point)['images'])
            kept = read_results(RESULTS).get(table, {}).get(name_of(point))
            if kept is not None:
                if kept['settings'] != settings:
                    sys.exit(f'{table}, {name_of(point)} was made with other settings')
                continue
            figures = in_process(point)
            print(table, name_of(point), figures, flush=True)
            keep_result(RESULTS, [table, name_of(point)],
                        figures | dict(settings=settings,
                                       on=describe_machine(torch.device('cpu'))))


if __name__ == '__main__':
    main(sys.argv[1:])
