"""The checks behind `make test`. Ends with a line `N passed, N failed`; the exit status is 1 if any failed.

    python tools/check.py              # all
    python tools/check.py clean links  # only these
    python tools/check.py notebooks=04_ntxent.ipynb
"""
import ast
import filecmp
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from configparser import ConfigParser
from pathlib import Path

root = Path(__file__).resolve().parent.parent
scripts = Path(sys.executable).parent
IGNORED = shutil.ignore_patterns('.git', '.venv*', 'runs', '_proc', '_docs', '__pycache__', '.ipynb_checkpoints', '*.egg-info', 'build', 'dist', 'nbdev.yml', 'sidebar.yml')


def run(*command, cwd, **env):
    "Exit status and all output of a command"
    p = subprocess.run(list(map(str, command)), cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                       env=os.environ | {'PATH': f'{scripts}{os.pathsep}{os.environ["PATH"]}', 'MPLBACKEND': 'agg'} | env)
    return p.returncode, p.stdout


def tree(folder): return {p.relative_to(folder) for p in folder.rglob('*') if p.is_file() and '__pycache__' not in p.parts}


def changed_by(command, parts):
    "Run a command on a copy of the project; the files under `parts` that it changed, made or removed"
    with tempfile.TemporaryDirectory() as d:
        copy = Path(d) / 'copy'
        shutil.copytree(root, copy, ignore=IGNORED, symlinks=True)
        status, said = run(*command, cwd=copy, PYTHONPATH=str(copy))
        if status: return [f'{command[0]} failed: {said.strip()[-500:]}']
        names = {p / f for place in (copy, root) for p in parts for f in tree(place / p)}
        same = lambda n: (copy / n).is_file() and (root / n).is_file() and filecmp.cmp(copy / n, root / n, shallow=False)
        return [f'{Path(command[0]).name} changes {n}' for n in sorted(names) if not same(n) and not IGNORED(None, [n.name])]


def check_clean(): return changed_by([scripts / 'nbdev_clean'], [Path('nbs')])


def check_export(): return changed_by([scripts / 'nbdev_export'], [Path('simclr_nb')])


def check_readme():
    sys.path.insert(0, str(root / 'tools'))
    from readme import readme_text
    return [] if (root / 'README.md').read_text() == readme_text() else ['README.md is not what nbs/index.ipynb makes; run `make readme`']


def requirement_names(text): return {re.split(r'[<>=!~\[]', r)[0].lower().replace('-', '_') for r in text.split()}


def imported(text):
    "Top-level names of the packages, neither Python's own nor ours, that some code imports"
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import): names |= {a.name for a in node.names}
        if isinstance(node, ast.ImportFrom) and node.level == 0: names.add(node.module)
    return {n.split('.')[0] for n in names} - set(sys.stdlib_module_names) - {'simclr_nb'}


def check_requirements():
    "What modules, notebooks and tools import is a requirement, and the commands of settings.ini exist"
    config = ConfigParser(delimiters=['='])
    config.read(root / 'settings.ini')
    needed, known = {'PIL': 'pillow'}, requirement_names(config['DEFAULT']['requirements'])
    problems = []
    for path in sorted((root / 'simclr_nb').glob('*.py')):
        for top in imported(path.read_text()):
            if needed.get(top, top).lower() not in known: problems.append(f'{path.name} imports {top}, which is not in the requirements of settings.ini')
    bench = known | requirement_names(config['DEFAULT']['bench_requirements'])
    dev = known | requirement_names(config['DEFAULT']['dev_requirements'])
    needed |= {'sklearn': 'scikit_learn', 'IPython': 'ipykernel', 'nbformat': 'nbconvert'} # the last two come with what is listed
    sources = [(p.name, p.read_text()) for p in sorted((root / 'tools').glob('*.py'))] + [(f'bench/{p.name}', p.read_text()) for p in sorted((root / 'bench').glob('*.py'))]
    for p in sorted((root / 'nbs').glob('*.ipynb')):
        sources += [(p.name, ''.join(c['source'])) for c in json.loads(p.read_text())['cells'] if c['cell_type'] == 'code']
    for name, text in sources:
        for top in imported(text) - {'readme', 'check'}:
            if needed.get(top, top).lower() not in (bench if name.startswith('bench/') else dev): problems.append(f'{name} imports {top}, which is not in the requirements of settings.ini')
    for line in config['DEFAULT']['console_scripts'].split():
        module, function = line.split('=')[1].split(':')
        status, said = run(sys.executable, '-c', f'from {module} import {function}', cwd=root, PYTHONPATH=str(root))
        if status: problems.append(f'the command {line} does not exist: {said.strip().splitlines()[-1]}')
    status, said = run(sys.executable, '-m', 'pip', 'check', cwd=root)
    if status and not re.search(r'(requires|has requirement|supported)', said): problems.append(f'pip check could not run: {said.strip()[-200:]}')
    return problems + [l for l in said.splitlines() if l.startswith('simclr')]


def slug(heading): return re.sub(r'\s+', '-', re.sub(r'[^\w\s-]', '', re.sub(r'[`*$]', '', heading)).strip().lower())


def check_links():
    "The inputs of the docs build, and every link between pages, notebooks and files leads somewhere"
    with tempfile.TemporaryDirectory() as d:
        copy = Path(d) / 'copy'
        shutil.copytree(root, copy, ignore=IGNORED, symlinks=True)
        status, said = run(sys.executable, '-c', 'from nbdev.serve import proc_nbs; print(proc_nbs())', cwd=copy, PYTHONPATH=str(copy))
        if status: return [f'docs inputs do not build: {said.strip()[-500:]}']
        made = copy / '_proc'
        problems = [f'docs inputs lack {p.name}' for p in sorted((root / 'nbs').glob('*.ipynb')) if not (made / p.name).is_file()]
        pages = {p: [''.join(c['source']) for c in json.loads(p.read_text())['cells'] if c['cell_type'] == 'markdown'] for p in sorted(made.glob('*.ipynb'))}
        pages |= {root / n: [(root / n).read_text()] for n in ('README.md', 'CONTRIBUTING.md', 'CHANGELOG.md')}
        anchors = {p.name: {slug(h) for text in texts for h in re.findall(r'^#+ (.+)$', text, re.M)} for p, texts in pages.items()}
        for page, texts in pages.items():
            whole = '\n'.join(texts)
            for link in re.findall(r'\]\(([^)\s]+)(?:\s+"[^"]*")?\)', whole) + re.findall(r'(?:href|src)="([^"]+)"', whole):
                if re.match(r'\w+:', link): continue
                target, _, anchor = link.partition('#')
                name = Path(target).name if target else page.name
                if page.parent == made and '/' in target: problems.append(f'{page.name}: a link out of the site: {link}')
                elif target and not ((page.parent / target).exists() or (page.parent == root and (root / target).exists())): problems.append(f'{page.name}: no such file: {link}')
                elif anchor and anchor not in anchors.get(name, ()): problems.append(f'{page.name}: no such heading: {link}')
        listed = set(re.findall(r'[\w]+\.ipynb', (root / '_quarto.yml').read_text()))
        problems += [f'_quarto.yml: {n} is {what}' for n, what in [(n, 'not in the sidebar') for n in {p.name for p in (root / 'nbs').glob('*.ipynb')} - listed] + [(n, 'not there') for n in listed if not (root / 'nbs' / n).exists()]]
        return problems


def shows(source):
    "Whether a cell leaves something to see: it ends in a value that is no call, or prints or draws outside a function"
    if re.search(r'^#\|\s*(export|hide)', source, re.M): return False
    body = ast.parse(source).body
    value = body and isinstance(body[-1], ast.Expr) and not isinstance(body[-1].value, ast.Call)
    calls = {ast.unparse(n.func) for s in body if not isinstance(s, (ast.FunctionDef, ast.ClassDef)) for n in ast.walk(s) if isinstance(n, ast.Call)}
    return bool(value or calls & {'print', 'plt.subplots'})


def check_outputs():
    "Every cell is run, those that end in a value, a print or a plot show it, and no output holds an error, a warning, escape codes or a local path"
    problems = []
    for p in sorted((root / 'nbs').glob('*.ipynb')):
        for c in json.loads(p.read_text())['cells']:
            source = ''.join(c['source'])
            if re.search(r'^#\|\s*(eval:\s*false|skip|notest)', source, re.M): problems.append(f'{p.name} cell {c["id"]} is not run')
            if c['cell_type'] == 'code' and shows(source) and not c['outputs']: problems.append(f'{p.name} cell {c["id"]} should show something, and its output is missing')
            for o in c.get('outputs', []):
                text = ''.join(o.get('text', o.get('data', {}).get('text/plain', '')))
                for what, found in (('an error', o['output_type'] == 'error'), ('a message on stderr', o.get('name') == 'stderr'), ('escape codes', '\x1b[' in text),
                                    ('a local path', re.search(rf'({re.escape(str(root))}|/home/|/root/|/tmp/|C:\\Users)', text))):
                    if found: problems.append(f'{p.name} cell {c["id"]}: a stored output holds {what}: {text[:80]!r}')
    return problems


def check_notebook(name):
    "One notebook, run from top to bottom as nbdev_test does"
    status, said = run(scripts / 'nbdev_test', '--path', f'nbs/{name}', '--n_workers', '0', cwd=root, OMP_NUM_THREADS=os.environ.get('OMP_NUM_THREADS', '2'))
    return [] if status == 0 else [said.strip()[-2000:]]


CHECKS = dict(clean=check_clean, export=check_export, requirements=check_requirements, readme=check_readme, links=check_links, outputs=check_outputs)


def main(wanted):
    notebooks = sorted(p.name for p in (root / 'nbs').glob('*.ipynb'))
    jobs = {k: f for k, f in CHECKS.items() if not wanted or k in wanted}
    for n in notebooks:
        if not wanted or 'notebooks' in wanted or f'notebooks={n}' in wanted: jobs[n] = lambda n=n: check_notebook(n)
    unknown = [w for w in wanted if w not in CHECKS and w != 'notebooks' and w.removeprefix('notebooks=') not in notebooks]
    if unknown: sys.exit(f'no such check: {", ".join(unknown)}; there are {", ".join(CHECKS)}, notebooks and notebooks=NAME')
    failed = 0
    for name, job in jobs.items():
        problems = job()
        failed += bool(problems)
        print(f'{"FAILED" if problems else "passed"}  {name}', flush=True)
        for p in problems: print(f'        {p}', flush=True)
    print(f'\n{len(jobs) - failed} passed, {failed} failed')
    return 1 if failed else 0


if __name__ == '__main__': sys.exit(main(sys.argv[1:]))
