"""The notes' run for real, but with the tiny encoder and for one epoch: all of CIFAR-10 at
batch 2048 in micro-batches of 256 rows, killed with SIGKILL and resumed from a shell, and once
more undisturbed for comparison.

    python bench/killed.py    # some ten minutes on two cores; needs CIFAR-10 (simclr_data)

Writes killed.json with the log.
"""
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from simclr_nb.core import describe_machine, write_json
from simclr_nb.runs import read_run

HERE = Path(__file__).resolve().parent
COMMAND = Path(sys.executable).parent / 'simclr_pretrain'
BEGIN = ('--preset notes --epochs 1 --encoder tiny --data cifar10 '
         '--checkpoint_minutes .25 --name ')
KILL_AT = 13 # steps


def steps_done(run):
    return len(read_run(run)[2]) if run.exists() else 0


def shell(args, folder, kill_at=None):
    "Output and exit status of the command, killed with SIGKILL when its run has so many steps"
    process = subprocess.Popen([COMMAND, *args.split()], cwd=folder, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True)
    if kill_at:
        run = Path(folder) / 'runs' / 'killed'
        while process.poll() is None and steps_done(run) < kill_at:
            time.sleep(.05)
        process.kill()
    return process.communicate()[0], process.returncode


def logged_runs(folder):
    "Kill a run, resume it, do another undisturbed; all that was typed and said"
    log = []
    for args, kill_at in ((BEGIN + 'killed', KILL_AT), ('--resume runs/killed', None),
                          (BEGIN + 'whole', None)):
        said, status = shell(args, folder, kill_at)
        log += [f'$ simclr_pretrain {args}', *said.splitlines(), f'exit status {status}']
        if status and not kill_at:
            raise RuntimeError('\n'.join(log))
    return log


def same_tensors(one, other):
    return (one.keys() == other.keys()
            and all(torch.equal(one[name], other[name]) for name in one))


def main():
    with tempfile.TemporaryDirectory() as folder:
        log = logged_runs(folder)
        killed, whole = (Path(folder) / 'runs' / name for name in ('killed', 'whole'))
        _, machine, killed_history = read_run(killed)
        _, _, whole_history = read_run(whole)
        weights = [load_file(run / 'encoder.safetensors') for run in (killed, whole)]
        results = json.loads((killed / 'results.json').read_text())
    losses = dict(killed=[row['loss'] for row in killed_history],
                  undisturbed=[row['loss'] for row in whole_history])
    write_json(HERE / 'killed.json', dict(
        command='python bench/killed.py', machine=describe_machine(torch.device('cpu')),
        killed_after=KILL_AT, resumed=[resumed['step'] for resumed in machine['resumed']],
        same_encoder=same_tensors(*weights), losses=losses,
        seconds=whole_history[-1]['seconds'], results=results, log=log))
    print('\n'.join(log))


if __name__ == '__main__':
    main()
