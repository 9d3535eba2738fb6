"""The notes' run for real, but with the tiny encoder and for one epoch: all of CIFAR-10 at batch 2048 in micro-batches of 256 rows, killed
with SIGKILL and resumed from a shell, and once more undisturbed for comparison.

    python bench/killed.py    # some ten minutes on two cores; needs CIFAR-10 (simclr_data); writes killed.json with the log
"""
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from simclr_nb.core import atomic_path, describe_machine
from simclr_nb.runs import read_run

HERE, COMMAND = Path(__file__).resolve().parent, Path(sys.executable).parent / 'simclr_pretrain'
BEGIN = '--preset notes --epochs 1 --encoder tiny --data cifar10 --checkpoint_minutes .25 --name '
KILL_AT = 13 # steps


def shell(args, folder, watch=None):
    "Run the command; kill it with SIGKILL when its run has so many steps; what was said, in order"
    p = subprocess.Popen([COMMAND, *args.split()], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    run = Path(folder) / 'runs' / 'killed'
    while watch and p.poll() is None and (not run.exists() or len(read_run(run)[2]) < watch): time.sleep(.05)
    if watch: p.kill()
    return p.communicate()[0], p.returncode


def main():
    with tempfile.TemporaryDirectory() as folder:
        log, runs = [], Path(folder) / 'runs'
        for args, watch in ((BEGIN + 'killed', KILL_AT), ('--resume runs/killed', None), (BEGIN + 'whole', None)):
            said, status = shell(args, folder, watch)
            log += [f'$ simclr_pretrain {args}', *said.splitlines(), f'exit status {status}']
            if status and not watch: raise RuntimeError('\n'.join(log))
        (_, machine, killed), (_, _, whole) = (read_run(runs / name) for name in ('killed', 'whole'))
        same = (runs / 'killed/encoder.safetensors').read_bytes() == (runs / 'whole/encoder.safetensors').read_bytes()
        results = json.loads((runs / 'killed/results.json').read_text())
    result = dict(command='python bench/killed.py', machine=describe_machine(torch.device('cpu')), killed_after=KILL_AT, resumed=[r['step'] for r in machine['resumed']], same_encoder=same,
                  losses=dict(killed=[row['loss'] for row in killed], undisturbed=[row['loss'] for row in whole]), seconds=whole[-1]['seconds'], results=results, log=log)
    with atomic_path(HERE / 'killed.json', overwrite=True) as p: p.write_text(json.dumps(result, indent=1) + '\n')
    print('\n'.join(result['log']))


if __name__ == '__main__': main()
