"""Break each thing that `make test` guards, one at a time on a copy, and show that its check fails there and passed before.

    python tools/breaks.py    # or: make breaks

Ends with a line `N passed, N failed`: a break passes if its check caught it.
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from check import IGNORED, root


def edit(path, old, new):
    text = path.read_text()
    assert old in text, f'{path} has no {old!r} to break'
    path.write_text(text.replace(old, new, 1))


def cells(path, change):
    nb = json.loads(path.read_text())
    change(nb['cells'])
    path.write_text(json.dumps(nb, indent=1, sort_keys=True, ensure_ascii=False) + '\n')


def source(cells, id): return next(c for c in cells if c['id'] == id)


BREAKS = ( # name, check that must catch it, what to do to a copy of the project
    ('a dirty notebook', 'clean', lambda d: cells(d / 'nbs/04_ntxent.ipynb', lambda cs: cs[4]['metadata'].update(scrolled=True))),
    ('an execution count', 'clean', lambda d: cells(d / 'nbs/04_ntxent.ipynb', lambda cs: source(cs, 'by-hand').update(execution_count=3))),
    ('an edited .py', 'export', lambda d: edit(d / 'simclr_nb/ntxent.py', 'temperature:float=.5', 'temperature:float=.6')),
    ('a .py that no notebook makes', 'export', lambda d: edit(d / 'simclr_nb/_modidx.py', "'simclr_nb/ntxent.py'", "'simclr_nb/other.py'")),
    ('an edited notebook that was not exported', 'export', lambda d: edit(d / 'nbs/05_lars.ipynb', 'momentum:float=.9', 'momentum:float=.8')),
    ('a stale README', 'readme', lambda d: edit(d / 'README.md', 'make pretrain', 'make train')),
    ('an index that README does not follow', 'readme', lambda d: edit(d / 'nbs/index.ipynb', 'no GPU needed', 'a GPU needed')),
    ('a broken link to a page', 'links', lambda d: edit(d / 'nbs/06_accumulate.ipynb', '(09_train.ipynb)', '(07_training.ipynb)')),
    ('a broken link to a heading', 'links', lambda d: edit(d / 'nbs/03_resnet.ipynb', '#where-random-numbers-come-from', '#where-they-come-from')),
    ('a page that is not in the sidebar', 'links', lambda d: edit(d / '_quarto.yml', '          - 05_lars.ipynb\n', '')),
    ('a page the docs build cannot read', 'links', lambda d: (d / 'nbs/05_lars.ipynb').write_text('{"cells": [')),
    ('a missing dependency', 'requirements', lambda d: edit(d / 'settings.ini', ' safetensors>=0.4', '')),
    ('a missing dependency of the tests', 'requirements', lambda d: edit(d / 'settings.ini', ' hypothesis>=6', '')),
    ('a missing dependency of the benchmark', 'requirements', lambda d: edit(d / 'settings.ini', ' kornia>=0.8', '')),
    ('a command that does not exist', 'requirements', lambda d: edit(d / 'settings.ini', 'cli:simclr_data', 'cli:simclr_dat')),
    ('a picture that was not stored', 'outputs', lambda d: cells(d / 'nbs/05_lars.ipynb', lambda cs: source(cs, 'warmup-cosine-plot').update(outputs=[]))),
    ('a cell that is never run', 'outputs', lambda d: cells(d / 'nbs/05_lars.ipynb', lambda cs: source(cs, 'by-hand')['source'].insert(0, '#| eval: false\n'))),
    ('a stored warning', 'outputs', lambda d: cells(d / 'nbs/04_ntxent.ipynb', lambda cs: source(cs, 'by-hand')['outputs'].append({'name': 'stderr', 'output_type': 'stream', 'text': ['UserWarning']}))),
    ('a failing cell', 'notebooks=04_ntxent.ipynb', lambda d: edit(d / 'nbs/04_ntxent.ipynb', 'math.log(2 * n - 1)', 'math.log(2 * n)')),
    ('a package that cannot be imported', 'notebooks=05_lars.ipynb', lambda d: edit(d / 'simclr_nb/resnet.py', 'from safetensors import', 'from safe_tensors import')),
)


def checked(folder, what):
    p = subprocess.run([sys.executable, folder / 'tools/check.py', what], cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                       env=os.environ | {'PYTHONPATH': str(folder)})
    return p.returncode, p.stdout.strip()


def main():
    missed, sound = 0, {}
    for name, what, do in BREAKS:
        with tempfile.TemporaryDirectory() as d:
            copy = Path(d) / 'copy'
            shutil.copytree(root, copy, ignore=IGNORED, symlinks=True)
            if what not in sound: sound[what] = checked(copy, what)[0] == 0
            do(copy)
            status, said = checked(copy, what)
        caught = sound[what] and status == 1
        missed += not caught
        reason = next((l.strip() for l in said.splitlines() if l.startswith('        ')), said[-200:])
        print(f'{"caught" if caught else "MISSED"}  {name}, by {what}{"" if sound[what] else " (which fails even without the break)"}: {reason[:150]}', flush=True)
    print(f'\n{len(BREAKS) - missed} passed, {missed} failed')
    return 1 if missed else 0


if __name__ == '__main__': sys.exit(main())
