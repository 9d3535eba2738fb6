"""One run in several processes whose number changes: killed with SIGKILL, resumed by others.

    python bench/many.py          # in earnest, some twenty minutes; writes many.json
    python bench/many.py --few    # two rounds, for the tests; writes nothing
    python bench/many.py --wrong  # what two processes that do not agree are told

A round is a run that is killed twice, one process of it at a moment drawn at random, and goes
on with another number of processes each time. It has survived if every process ended by itself
each time, the one that was killed was named by the others or by torchrun, and the encoder's
file has the SHA-256 of a run in one process that nobody disturbed. In every fourth round
torchrun starts the processes anew by itself.
"""
import argparse
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist

from simclr_nb.augment import SimCLRAugment
from simclr_nb.core import describe_machine, write_json
from simclr_nb.data import sample
from simclr_nb.distributed import join_processes, world
from simclr_nb.ntxent import nt_xent
from simclr_nb.resnet import resnet_tiny
from simclr_nb.runs import RunFiles, TrainConfig, read_run
from simclr_nb.train import pretrain

HERE = Path(__file__).resolve().parent
RUN = TrainConfig(width=8, batch=32, micro_batch=12, epochs=5, warmup_epochs=1., size=16,
                  device='cpu', precision='float32', compile=False, threads=1,
                  checkpoint_minutes=0.) # 40 steps of six micro-batches, the last of 4 views
IMAGES = 256
PATIENCE = 120 # seconds until every process must have ended
COUNTS = (3, 1, 4, 2) # processes, in turn
CHANCE = random.Random(0)


# what every process does

def work(folder):
    rank = int(os.environ.get('RANK', 0))
    (folder.parent / f'{folder.name} process {rank}').write_text(str(os.getpid()))
    pretrain(RUN, sample('train')[:IMAGES], folder=folder, resume=folder.exists(),
             progress=False)


def zero_stem(row, model): # called in the first process only
    model.encoder.conv1.weight.data.zero_()


def disagree():
    "Processes that do not agree: prints what each is told, and whether anything was written"
    images = sample('train')[:IMAGES]
    with join_processes('cpu'), tempfile.TemporaryDirectory() as parent:
        rank, lines = world()[0], []
        torch.manual_seed(rank)
        wrong = {
            'seed': (replace(RUN, seed=rank), images, {}),
            'threads': (replace(RUN, threads=1 + rank), images, {}),
            'images': (RUN, images[rank:], {}),
            'weights': (RUN, images, dict(encoder=resnet_tiny(width=8, groups=4))),
            'micro_batch': (replace(RUN, micro_batch=None), images, {}),
            'all rows': (replace(RUN, micro_batch=64), images, {}),
            'BatchNorm': (replace(RUN, norm='batch'), images, {}),
            'augmentation': (RUN, images,
                             dict(augment=SimCLRAugment(RUN.size, grey=.2 + rank / 2))),
            'loss': (RUN, images, dict(loss=partial(nt_xent, temperature=.1 + rank))),
            'compile': (replace(RUN, compile='auto' if rank else False), images, {}),
            'callback': (RUN, images, dict(on_step=zero_stem))} # that changes the model
        for name, (config, own_images, parts) in wrong.items():
            folder = Path(parent) / name
            try:
                pretrain(config, own_images, folder=folder, progress=False, **parts)
                said = 'nothing'
            except ValueError as error:
                said = str(error)
            lines.append(f'{name}, process {rank}: {said}'
                         + (' (and a folder was made)' if folder.exists() else ''))
        everybody = [None] * world()[1]
        dist.all_gather_object(everybody, lines)
    if rank == 0: # two at a time would write into each other's lines
        print('\n'.join(line for lines in everybody for line in lines))


# one round

def begin(option, processes, *torchrun_options, folder=''):
    "The processes, and what they say in a file of its own"
    starter = [sys.executable]
    if processes > 1:
        starter += ['-m', 'torch.distributed.run', '--standalone', *torchrun_options,
                    f'--nproc-per-node={processes}']
    said = tempfile.TemporaryFile('w+')
    job = subprocess.Popen([*starter, __file__, option, folder], stdout=said, stderr=said,
                           env=os.environ | dict(OMP_NUM_THREADS='1'))
    job.said = said
    return job


def end_of(job):
    "Exit status and words of the processes; they are given some time"
    try:
        status = job.wait(PATIENCE)
    finally:
        job.kill()
    job.said.seek(0)
    return status, job.said.read()


def steps_done(folder):
    return len(read_run(folder)[2]) if RunFiles(folder).metrics.exists() else 0


def kill_one(folder, job, rank, steps):
    "SIGKILL to a process of the run when it has so many steps; steps then"
    while steps_done(folder) < steps and job.poll() is None:
        time.sleep(.001)
    os.kill(int((folder.parent / f'{folder.name} process {rank}').read_text()), signal.SIGKILL)
    return steps_done(folder)


def hash_of(folder):
    return hashlib.sha256(RunFiles(folder).encoder_weights.read_bytes()).hexdigest()


def undisturbed(folder, processes=1):
    status, said = end_of(begin('--worker', processes, folder=folder))
    if status:
        raise RuntimeError(said)
    return hash_of(folder)


def one_kill(folder, processes, steps, restarts):
    "Begin or resume the run, and kill one of its processes; what was seen"
    options = ('--max-restarts=1',) if restarts else ()
    job = begin('--worker', processes, *options, folder=folder)
    rank = CHANCE.randrange(processes)
    seen = dict(processes=processes, killed=rank, after=kill_one(folder, job, rank, steps))
    start = time.perf_counter()
    status, said = end_of(job)
    seen['seconds_to_end'] = round(time.perf_counter() - start, 2)
    if restarts:
        return seen | dict(restarted=status == 0)
    by_others = f'process {rank} has ended' in said
    by_torchrun = bool(re.search(rf'rank +: {rank} .*\n.*exitcode +: -9', said))
    return seen | dict(named_by_others=by_others, named_by_torchrun=by_torchrun,
                       named=processes == 1 or by_others or by_torchrun,
                       others_ended=status != 0)


def do_round(k, work_folder, expected):
    "A run, killed twice and brought to its end; what was seen, a dict"
    folder = work_folder / f'round {k}'
    restarts = k % 4 == 1
    counts = [COUNTS[(k + place) % len(COUNTS)] for place in range(3)]
    kills = []
    for place, processes in enumerate(counts[:1] if restarts else counts[:2]):
        if restarts:
            processes = max(processes, 2) # torchrun, not the shell, starts it anew
        steps = 1 + 18 * place + CHANCE.randrange(16)
        kills.append(one_kill(folder, processes, steps, restarts))
    last = counts[-1]
    if not restarts: # else it has come to its end by itself
        status, said = end_of(begin('--worker', last, folder=folder))
        if status:
            raise RuntimeError(said)
    found = hash_of(folder)
    survived = found == expected and all(
        kill.get('restarted', kill.get('named')) and kill.get('others_ended', True)
        for kill in kills)
    return dict(kills=kills, ended_by=None if restarts else last, sha256=found,
                survived=survived)


def in_words(k, seen):
    parts = []
    for kill in seen['kills']:
        how = 'not named'
        if kill.get('restarted'):
            how = 'started anew'
        elif kill.get('named_by_others'):
            how = 'named by the others'
        elif kill.get('named'):
            how = 'named by torchrun'
        count = f"{kill['processes']} process{'es' if kill['processes'] > 1 else ''}"
        parts.append(f"{count}: process {kill['killed']} killed after {kill['after']} steps"
                     + (f', {how}' if kill['processes'] > 1 else ''))
    if seen['ended_by']:
        parts.append(f"{seen['ended_by']} to the end")
    text = f"round {k}: {'; '.join(parts)}: {seen['sha256'][:12]}"
    return textwrap.fill(text, 96, subsequent_indent='    ')


def rounds(count, path=None):
    "Whether all survived. Prints a line for each round; writes `path` as it goes"
    with tempfile.TemporaryDirectory() as parent:
        work_folder = Path(parent)
        expected = undisturbed(work_folder / 'whole')
        print(f'one process, undisturbed: {expected[:12]}', flush=True)
        whole = {1: expected}
        for processes in (2, 3, 4, 8) if path else ():
            whole[processes] = undisturbed(work_folder / f'whole by {processes}', processes)
            print(f'{processes} processes, undisturbed: {whole[processes][:12]}', flush=True)
        found = []
        for k in range(count):
            found.append(do_round(k, work_folder, expected))
            print(in_words(k, found[-1]), flush=True)
            if path:
                write_json(path, dict(command='python bench/many.py', sha256=expected,
                                      machine=describe_machine(torch.device('cpu')),
                                      undisturbed=whole, rounds=found))
    return (set(whole.values()) == {expected}
            and all(seen['survived'] for seen in found))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--few', action='store_true', help='two rounds; write nothing')
    parser.add_argument('--wrong', action='store_true', help='two processes that disagree')
    parser.add_argument('--worker', type=Path, help=argparse.SUPPRESS)
    parser.add_argument('--disagree', nargs='?', const=True, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return work(args.worker)
    if args.disagree is not None:
        return disagree()
    if args.wrong:
        status, said = end_of(begin('--disagree', 2))
        print('\n'.join(sorted(line for line in said.splitlines() if ', process ' in line)))
        return status
    survived = rounds(2 if args.few else 20, None if args.few else HERE / 'many.json')
    return 0 if survived else 1


if __name__ == '__main__':
    sys.exit(main())
