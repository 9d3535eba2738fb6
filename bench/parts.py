"""The parts of the method beside the libraries people use: speed, memory and equality.

    python bench/parts.py                  # the parts, half an hour of two cores: make bench
    python bench/parts.py epoch epoch-memory    # an epoch as a whole: twenty minutes
    python bench/parts.py augment ntxent   # these; what the file holds of the others stays
    python bench/parts.py --device cuda    # on a GPU; writes parts-cuda.json

The contestants stand in contests.py, the comparison of results in equality.py. Every contestant
runs in a process of its own: warm-up, then the median of its calls. The processes take turns,
`ROUNDS` times, and a ratio is the median of the ratios within the rounds, with its range. It is
done with the system's allocator and, if it is installed, again with tcmalloc, which keeps freed
memory and so spares every large buffer its page faults.
"""
import argparse
import glob
import json
import os
import resource
import statistics
import subprocess
import sys
import time
import warnings
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path

import torch

from contests import CONTESTS, MEMORY
from equality import equality
from simclr_nb.core import describe_machine, has_bf16, write_json

HERE = Path(__file__).resolve().parent
ROUNDS = 5
PEERS = ('lightly', 'kornia', 'pytorch-metric-learning', 'torchvision')
PARTS = (*CONTESTS, *MEMORY, 'equality')
WHOLE = ('epoch', 'epoch-memory') # only if they are named


# a contestant in a process of its own

def worker(part, contest, who, device):
    "Seconds a call takes in this process: the median after warm-up"
    call = CONTESTS[part][contest].contestants[who](device)
    def timed():
        start = time.perf_counter()
        call()
        if device == 'cuda':
            torch.cuda.synchronize()
        return time.perf_counter() - start
    timed() # warm-up
    timed()
    seconds, begin = [], time.perf_counter()
    while len(seconds) < 5 or len(seconds) < 50 and time.perf_counter() - begin < 1.5:
        seconds.append(timed())
    return dict(seconds=statistics.median(seconds), calls=len(seconds))


def memory_before(device):
    if device == 'cuda':
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith('VmRSS'):
            return int(line.split()[1]) * 1024


def memory_peak(device):
    if device == 'cuda':
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def worker_memory(part, who, n, device):
    "Peak memory of one call in this process beyond what was there before it, and its seconds"
    make = MEMORY[part].contestants[who]
    make(MEMORY[part].warm_up)(device)() # imports, thread pools
    call = make(n)(device)
    before = memory_before(device)
    start = time.perf_counter()
    call()
    after = memory_peak(device)
    return dict(bytes=after - before, seconds=time.perf_counter() - start)


def in_process(*what, tcmalloc=None):
    env = {name: value for name, value in os.environ.items() if name != 'LD_PRELOAD'}
    if tcmalloc:
        env['LD_PRELOAD'] = tcmalloc
    command = [sys.executable, __file__, '--worker', json.dumps(what)]
    p = subprocess.run(command, env=env, capture_output=True, text=True)
    if p.returncode:
        raise RuntimeError(f'{what} failed: {p.stderr.strip()[-800:]}')
    return json.loads(p.stdout.strip().splitlines()[-1])


def find_tcmalloc():
    places = ('/usr/lib/*/libtcmalloc*.so.*', '/usr/lib*/libtcmalloc*.so.*',
              '/opt/homebrew/lib/libtcmalloc*.dylib')
    for file in sorted(file for place in places for file in glob.glob(place)):
        if 'debug' not in file and 'profiler' not in file:
            return file
    return None


# the contests

def say(text):
    print(text, file=sys.stderr, flush=True)


def measure_contest(part, contest, device):
    "Seconds of every round, by allocator and contestant"
    allocators = {'default': None}
    if device == 'cpu' and find_tcmalloc():
        allocators['tcmalloc'] = find_tcmalloc()
    seconds = {}
    for allocator in allocators:
        for who in CONTESTS[part][contest].contestants:
            own_allocator = 'commands' in who or part == 'accumulate' # glibc's
            if allocator == 'default' or not own_allocator:
                seconds[allocator, who] = []
    for k in range(ROUNDS):
        for (allocator, who), times in seconds.items():
            result = in_process(part, contest, who, device, tcmalloc=allocators[allocator])
            times.append(result['seconds'])
            say(f'{part}: {contest}, {allocator}, round {k + 1}: '
                f'{who} {1e3 * times[-1]:.1f} ms')
    return seconds


def measure(part, device):
    "All contests of a part: a row per allocator and contestant, with its ratio to ours"
    rows = []
    for contest, (_, handled, unit) in CONTESTS[part].items():
        if contest.startswith('bf16') and not has_bf16(torch.device(device)):
            continue # emulated: no figure worth having
        ours = {} # allocator -> seconds of its first contestant
        for (allocator, who), seconds in measure_contest(part, contest, device).items():
            ours.setdefault(allocator, seconds)
            ratios = [theirs / our for theirs, our in zip(seconds, ours[allocator])]
            middle = statistics.median(seconds)
            figure = round(handled / middle) if handled else round(1e3 * middle, 2)
            rows.append(dict(contest=contest, allocator=allocator, who=who, figure=figure,
                             unit=unit, seconds=seconds,
                             times_ours=round(statistics.median(ratios), 3),
                             low=round(min(ratios), 3), high=round(max(ratios), 3)))
    return rows


def table(rows, first='ours'):
    lines = [f'{"":66}time / {first} (range)']
    for contest, members in groupby(rows, key=lambda row: row['contest']):
        lines.append(contest)
        for row in members:
            figure = f'{row["figure"]:>10,} {row["unit"]:7}'
            ratio = f'{row["times_ours"]:.2f} ({row["low"]:.2f} to {row["high"]:.2f})'
            lines.append(f'  {row["allocator"]:11}{row["who"]:32}{figure}   {ratio}')
    return '\n'.join(lines)


def measure_memory(part, device):
    rows = []
    for who, n in MEMORY[part].runs:
        repeats = 3 if n < 32768 else 1
        runs = [in_process('memory', part, who, n, device) for _ in range(repeats)]
        megabytes = statistics.median(run['bytes'] for run in runs) / 1e6
        seconds = statistics.median(run['seconds'] for run in runs)
        rows.append(dict(who=who, n=n, megabytes=round(megabytes, 1),
                         seconds=round(seconds, 2)))
        say(f'{part}: {rows[-1]}')
    return rows


def run_part(part, device):
    if part == 'equality':
        return dict(largest_difference=equality())
    if part in MEMORY:
        return dict(rows=measure_memory(part, device))
    rows = measure(part, device)
    return dict(rows=rows, table=table(rows, 'full pass' if part == 'accumulate' else 'ours'))


# the machine, and the file

def installed(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def machine(device):
    peers = {name: installed(name) for name in PEERS}
    return (describe_machine(torch.device(device)) | peers
            | dict(threads=torch.get_num_threads(), tcmalloc=bool(find_tcmalloc())))


def hardware_lines(m):
    peers = ', '.join(f'{name} {m[name]}' for name in PEERS)
    return (f"{m['gpu'] or m['cpu']}, {m['threads']} threads, Python {m['python']}, "
            f"torch {m['torch']},\n{peers};\nsimclr_nb at {m['commit']}")


def show(part, result):
    print(f'\n{part}')
    if 'table' in result:
        print(result['table'])
        return
    for row in result.get('rows', ()):
        print(row)
    for name, gap in result.get('largest_difference', {}).items():
        print(f'{gap:<10.2g}{name}')


def parse():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('parts', nargs='*',
                        help=f'some of {", ".join(PARTS)}; '
                             f'if none is named, all but {" and ".join(WHOLE)}')
    parser.add_argument('--device', default='cpu', choices=('cpu', 'cuda'))
    parser.add_argument('--worker', help=argparse.SUPPRESS)
    args = parser.parse_args()
    unknown = set(args.parts) - set(PARTS)
    if unknown:
        parser.error(f'no such part: {", ".join(sorted(unknown))}; '
                     f'there are {", ".join(PARTS)}')
    return args


def work(what): # in a process of its own
    warnings.filterwarnings('ignore') # of the peers
    result = worker_memory(*what[1:]) if what[0] == 'memory' else worker(*what)
    print(json.dumps(result))


def main():
    args = parse()
    if args.worker:
        work(json.loads(args.worker))
        return
    path = HERE / ('parts.json' if args.device == 'cpu' else f'parts-{args.device}.json')
    results = json.loads(path.read_text()) if path.exists() else {}
    for part in args.parts or [part for part in PARTS if part not in WHOLE]:
        here = machine(args.device)
        about = dict(command=f'python bench/parts.py {part}', machine=here,
                     hardware=hardware_lines(here))
        results[part] = about | run_part(part, args.device)
        write_json(path, results) # a part that is done is kept
    for part, result in results.items():
        show(part, result)
    print(f'\nin {path.name}, with machine, versions and commit')


if __name__ == '__main__':
    main()
