"""The notes' run for real, but with the tiny encoder and for one epoch: all of CIFAR-10 at batch 2048 in micro-batches of 256 rows, killed
with SIGKILL and resumed from a shell.

    python bench/killed.py    # some five minutes on two cores; needs CIFAR-10 (simclr_data); writes killed.json with the log
"""
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from simclr_nb.data import atomic_path
from simclr_nb.train import describe_machine, read_run

HERE, COMMAND = Path(__file__).resolve().parent, Path(sys.executable).parent / 'simclr_pretrain'
BEGIN = '--preset notes --epochs 1 --encoder tiny --data cifar10 --checkpoint_minutes .25 --name killed'
KILL_AT = 13 # steps


def shell(args, folder, watch=None):
    "Run the command; kill it with SIGKILL when its run has so many steps; what was said, in order"
    p = subprocess.Popen([COMMAND, *args.split()], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    run = Path(folder) / 'runs' / 'killed'
    while watch and (not run.exists() or len(read_run(run)[2]) < watch): time.sleep(.05)
    if watch: p.kill()
    return p.communicate()[0], p.returncode


def main():
    with tempfile.TemporaryDirectory() as folder:
        log = []
        for args, watch in ((BEGIN, KILL_AT), ('--resume runs/killed', None)):
            said, status = shell(args, folder, watch)
            log += [f'$ simclr_pretrain {args}', *said.splitlines(), f'exit status {status}']
        _, machine, history = read_run(Path(folder) / 'runs' / 'killed')
        results = json.loads((Path(folder) / 'runs' / 'killed' / 'results.json').read_text())
    steps = [row['step'] for row in history]
    if status or steps != list(range(24)): raise RuntimeError('\n'.join(log))
    losses = [round(row['loss'], 4) for row in history]
    result = dict(command='python bench/killed.py', machine=describe_machine(torch.device('cpu')), killed_after=KILL_AT, resumed=[r['step'] for r in machine['resumed']], losses=losses, results=results,
                  log=[re.sub(r'\s+$', '', line) for line in log])
    with atomic_path(HERE / 'killed.json', overwrite=True) as p: p.write_text(json.dumps(result, indent=1) + '\n')
    print('\n'.join(result['log']))


if __name__ == '__main__': main()
