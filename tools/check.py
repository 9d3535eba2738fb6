"""The checks behind `make test`. Ends with a line `N passed, N failed`; status 1 if any failed.

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
import traceback
from concurrent.futures import ThreadPoolExecutor, as_completed
from configparser import ConfigParser
from contextlib import contextmanager
from pathlib import Path

root = Path(__file__).resolve().parent.parent
scripts = Path(sys.executable).parent
IGNORED = shutil.ignore_patterns(
    '.git', '.venv*', 'runs', '_proc', '_docs', '__pycache__', '.ipynb_checkpoints',
    '.hypothesis',
    '*.egg-info', 'build', 'dist', 'nbdev.yml', 'sidebar.yml')
MAX_WIDTH = 96 # characters in a line of code, as many as the site's pages show
MAX_OUTPUT_WIDTH = 100 # characters in a line of text that a cell has shown
MAX_LINES = 40 # of code in a cell or a function
MAX_WORKERS = 4 # checks at a time, each a process of one thread and up to 2 GB


def run(*command, cwd, **env):
    "Exit status and all output of a command"
    path = f'{scripts}{os.pathsep}{os.environ["PATH"]}'
    p = subprocess.run(list(map(str, command)), cwd=cwd, stdin=subprocess.DEVNULL,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                       env=os.environ | {'PATH': path, 'MPLBACKEND': 'agg'} | env)
    return p.returncode, p.stdout


def notebooks():
    return sorted((root / 'nbs').glob('*.ipynb'))


def read_cells(path, kind):
    "(id, source, outputs) of the cells of a kind, 'code' or 'markdown'"
    return [(cell.get('id'), ''.join(cell['source']), cell.get('outputs', []))
            for cell in json.loads(path.read_text())['cells'] if cell['cell_type'] == kind]


@contextmanager
def project_copy():
    "A copy of the project in a temporary folder"
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / 'copy'
        shutil.copytree(root, copy, ignore=IGNORED, symlinks=True)
        yield copy


# clean, export, readme: what is made is what would be made now

def files_in(folder):
    found = set()
    for place, folders, names in os.walk(folder):
        ignored = IGNORED(place, folders + names)
        folders[:] = [name for name in folders if name not in ignored]
        found |= {Path(place, name).relative_to(folder) for name in names
                  if name not in ignored}
    return found


def same_file(first, second):
    return first.is_file() and second.is_file() and filecmp.cmp(first, second, shallow=False)


def changed_by(command, part):
    "Run a command on a copy of the project; the files in folder `part` that it changes"
    with project_copy() as copy:
        status, said = run(*command, cwd=copy, PYTHONPATH=str(copy))
        if status:
            return [f'{command} failed: {said.strip()[-500:]}']
        names = {part / name for folder in (copy, root) for name in files_in(folder / part)}
        return [f'{name} is not what `make tidy` makes' for name in sorted(names)
                if not same_file(copy / name, root / name)]


def check_clean():
    return changed_by([sys.executable, 'tools/tidy.py', 'clean'], Path('nbs'))


def check_export():
    return changed_by([scripts / 'nbdev_export'], Path('simclr_nb'))


def check_readme():
    sys.path.insert(0, str(root / 'tools'))
    from readme import readme_text
    if (root / 'README.md').read_text() == readme_text():
        return []
    return ['README.md is not what nbs/index.ipynb makes; run `make readme`']


# requirements

OTHER_NAMES = {'PIL': 'pillow'} # import -> requirement
OTHER_DEV_NAMES = OTHER_NAMES | { # the last two come with what is listed
    'sklearn': 'scikit_learn', 'IPython': 'ipykernel', 'nbformat': 'nbconvert'}
OTHER_BENCH_NAMES = OTHER_DEV_NAMES | {'open_clip': 'open_clip_torch'}


def requirement_names(text):
    names = (re.split(r'[<>=!~\[]', requirement)[0] for requirement in text.split())
    return {name.lower().replace('-', '_') for name in names}


def optional_imports(tree):
    "The imports in a `try` that goes on without them"
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Try):
            handled = {ast.unparse(h.type) for h in node.handlers if h.type is not None}
            if handled & {'ImportError', 'ModuleNotFoundError'}:
                found |= set(node.body)
    return found


def imported(text):
    "Top-level names of the packages, neither Python's own nor ours, that some code needs"
    tree = ast.parse(text)
    optional = optional_imports(tree)
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and node not in optional:
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node not in optional:
            names.add(node.module)
    ours = {'simclr_nb', *(path.stem for folder in ('tools', 'bench')
                           for path in (root / folder).glob('*.py'))}
    return {name.split('.')[0] for name in names} - set(sys.stdlib_module_names) - ours


def missing_requirements(sources, known, other_names):
    "A line for each import in `sources`, (name, text), that no known requirement brings"
    return [f'{name} imports {top}, which is not in the requirements of settings.ini'
            for name, text in sources for top in imported(text)
            if other_names.get(top, top).lower() not in known]


def scripts_in(folder):
    "(name, text) of the scripts in a folder of the project"
    return [(f'{folder}/{path.name}', path.read_text())
            for path in sorted((root / folder).glob('*.py'))]


def missing_commands(console_scripts):
    for line in console_scripts.split():
        module, function = line.split('=')[1].split(':')
        status, said = run(sys.executable, '-c', f'from {module} import {function}', cwd=root,
                           PYTHONPATH=str(root))
        if status:
            yield f'the command {line} does not exist: {said.strip().splitlines()[-1]}'


def unmet_requirements():
    status, said = run(sys.executable, '-m', 'pip', 'check', cwd=root)
    if status and not re.search(r'(requires|has requirement|supported)', said):
        yield f'pip check could not run: {said.strip()[-200:]}'
    yield from (line for line in said.splitlines() if line.startswith('simclr'))


def check_requirements():
    "What is imported is a requirement, and the commands of settings.ini exist"
    config = ConfigParser(delimiters=['='])
    config.read(root / 'settings.ini')
    facts = config['DEFAULT']
    known = requirement_names(facts['requirements'])
    dev = known | requirement_names(facts['dev_requirements'])
    bench = known | requirement_names(facts['bench_requirements'])
    in_notebooks = [(path.name, text) for path in notebooks()
                    for _, text, _ in read_cells(path, 'code')]
    return [*missing_requirements(scripts_in('simclr_nb'), known, OTHER_NAMES),
            *missing_requirements(scripts_in('tools') + in_notebooks, dev, OTHER_DEV_NAMES),
            *missing_requirements(scripts_in('bench'), bench, OTHER_BENCH_NAMES),
            *missing_commands(facts['console_scripts']),
            *unmet_requirements()]


# links

def slug(heading):
    "The anchor that the site gives a heading, by Pandoc's rule"
    own = re.search(r'\{#([^}\s]+)[^}]*\}\s*$', heading)
    if own:
        return own[1]
    words = re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', heading)
    words = re.sub(r'[^\w\s.-]', '', words).strip().lower()
    return re.sub(r'^[^a-z]+', '', re.sub(r'\s+', '-', words))


def links_in(text):
    "Links and pictures of Markdown and HTML, without those to other sites"
    found = re.findall(r'\]\(([^)\s]+)(?:\s+"[^"]*")?\)', text)
    found += re.findall(r'(?:href|src)="([^"]+)"', text)
    return [link for link in found if not re.match(r'\w+:', link)]


def page_text(path):
    "What a page shows as Markdown: its text and what its cells displayed, without code"
    parts = [text for _, text, _ in read_cells(path, 'markdown')]
    for _, _, outputs in read_cells(path, 'code'):
        parts += [''.join(output.get('data', {}).get('text/markdown', ''))
                  for output in outputs]
    return re.sub(r'^```.*?^```', '', '\n\n'.join(parts), flags=re.M | re.S)


def broken_link(page, link, anchors, site):
    "What is wrong with a link of a page, None if nothing is"
    target, _, anchor = link.partition('#')
    name = Path(target).name if target else page.name
    in_site = page.parent == site
    if in_site and target.endswith('.html'): # of a definition; the page has the notebook's name
        stem = Path(target).stem
        target = next((page for page in anchors
                       if re.fullmatch(rf'(\d\d\w?_)?{stem}\.ipynb', page)), target)
        name = target
    if in_site and '/' in target:
        return f'{page.name}: a link out of the site: {link}'
    if target and not (page.parent / target).exists():
        return f'{page.name}: no such file: {link}'
    if anchor and anchor not in anchors.get(name, ()):
        return f'{page.name}: no such heading: {link}'


def broken_links(site):
    "A line for each link, in the site's pages and in the Markdown files, that leads nowhere"
    pages = {path: page_text(path) for path in sorted(site.glob('*.ipynb'))}
    for name in ('README.md', 'CONTRIBUTING.md', 'CHANGELOG.md'):
        pages[root / name] = (root / name).read_text()
    anchors = {path.name: [slug(heading) for heading in re.findall(r'^#+ (.+)$', text, re.M)]
               for path, text in pages.items()}
    for page, text in pages.items():
        problems = (broken_link(page, link, anchors, site) for link in links_in(text))
        yield from filter(None, problems)
        if page.parent == site:
            twice = {name for name in anchors[page.name] if anchors[page.name].count(name) > 1}
            yield from (f'{page.name}: two headings #{name}' for name in sorted(twice))


UGLY = { # what no page may show -> how it is found
    'an address in memory': r'\bat 0x[0-9a-f]{6,}',
    'a default of no type': r':NoneType=None',
    'a link within a link': r'\[\[[^\]]*\]\([^)]*\)\]\(',
    'the end of a doubled backtick': r'(?<!`)``(?!`)[^`\n]*`(?!`)'}


def unlisted_papers(path, bibliography):
    "Links to papers that the list of references lacks"
    for address in re.findall(r'\]\((https://arxiv\.org/[^)]+)\)', page_text(path)):
        if f'url = {{{address}}}' not in bibliography:
            yield f'{path.name}: a paper that references.bib lacks: {address}'


def page_problems(path):
    "What is wrong with a page beside its links"
    cells = json.loads(path.read_text())['cells']
    first = cells[0]
    front = ''.join(first['source']) if first['cell_type'] == 'raw' else ''
    for field in ('title', 'description'):
        if not re.search(rf'^{field}: \S', front, re.M):
            yield f'{path.name}: no {field} in the front matter'
    text = page_text(path)
    headings = {slug(heading) for heading in re.findall(r'^#+ (.+)$', text, re.M)}
    for cell in cells: # the id of one with code is an anchor, too
        if cell['cell_type'] == 'code' and cell.get('id') in headings:
            yield f'{path.name}: a cell and a heading #{cell["id"]}'
    yield from unlisted_papers(path, (path.parent / 'references.bib').read_text())
    for what, pattern in UGLY.items():
        for found in re.finditer(pattern, text):
            yield f'{path.name}: {what}: {found[0][:60]}'


def sidebar_problems():
    listed = set(re.findall(r'\w+\.ipynb', (root / '_quarto.yml').read_text()))
    present = {path.name for path in notebooks()}
    for name in sorted(present - listed):
        yield f'_quarto.yml: {name} is not in the sidebar'
    for name in sorted(listed - present):
        yield f'_quarto.yml: {name} is not there'


def check_links():
    "The pages of the site can be made; links between pages, notebooks and files lead somewhere"
    with project_copy() as copy:
        status, said = run(sys.executable, 'tools/pages.py', '_proc', cwd=copy,
                           PYTHONPATH=str(copy))
        if status:
            return [f'the pages of the site cannot be made: {said.strip()[-500:]}']
        site = copy / '_proc'
        missing = [f'the site lacks {path.name}' for path in notebooks()
                   if not (site / path.name).is_file()]
        pages = [problem for path in sorted(site.glob('*.ipynb'))
                 for problem in page_problems(path)]
        return [*missing, *pages, *broken_links(site), *sidebar_problems()]


# outputs

def calls_outside_functions(body):
    for statement in body:
        if not isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
            for node in ast.walk(statement):
                if isinstance(node, ast.Call):
                    yield ast.unparse(node.func)


def shows(source):
    "Whether a cell leaves something to see: a value that is no call, a print or a plot"
    if re.search(r'^#\|\s*(export|hide)', source, re.M):
        return False
    body = ast.parse(source).body
    last = body[-1] if body else None
    if isinstance(last, ast.Expr) and not isinstance(last.value, ast.Call):
        return True
    return not {'print', 'display', 'plt.subplots'}.isdisjoint(calls_outside_functions(body))


def bad_parts(output):
    "What a stored output must not hold but does"
    text = ''.join(output.get('text', output.get('data', {}).get('text/plain', '')))
    local_path = rf'({re.escape(str(root))}|/home/|/root/|/tmp/|C:\\Users)'
    found = {'an error': output['output_type'] == 'error',
             'a message on stderr': output.get('name') == 'stderr',
             'escape codes': '\x1b[' in text,
             'a local path': re.search(local_path, text)}
    for what, is_there in found.items():
        if is_there:
            yield f'a stored output holds {what}: {text[:80]!r}'


def hard_to_read(source, output):
    "What of a shown output readers of the site cannot see, or not well"
    data = output.get('data', {})
    for value in re.findall(r'^#\| *[a-z-]+: ([^"\'\n].*)', source, re.M):
        if ': ' in value:
            yield f'the value of a directive needs quotes, since it has a colon: {value[:50]}'
    if 'image/png' in data and not re.search(r'^#\|\s*fig-alt: \S', source, re.M):
        yield 'a figure has no fig-alt'
    text = ''.join(output.get('text', ''))
    if 'text/markdown' not in data and 'text/html' not in data:
        text += ''.join(data.get('text/plain', ''))
    for line in text.splitlines():
        if len(line) > MAX_OUTPUT_WIDTH:
            yield f'{len(line)} characters in a line, {MAX_OUTPUT_WIDTH} allowed: {line[:50]}'
        if re.match(r'\s*\|[\s:|-]+\|\s*$', line):
            yield 'a table is shown as the text of its Markdown'


def is_skipped(source):
    return re.search(r'^#\|\s*(eval:\s*false|skip|notest)', source, re.M)


def exports_package(source):
    "Whether a cell does nothing but write the modules, which tests must not do"
    statements = [ast.unparse(node) for node in ast.parse(source).body]
    return statements == ['import nbdev', 'nbdev.nbdev_export()']


def check_outputs():
    "Every cell is run, cells with a value, a print or a plot show it, and outputs are sound"
    problems = []
    for path in notebooks():
        for id, source, outputs in read_cells(path, 'code'):
            place = f'{path.name} cell {id}'
            if is_skipped(source) and not exports_package(source):
                problems.append(f'{place} is not run')
            if shows(source) and not outputs:
                problems.append(f'{place} should show something, and its output is missing')
            problems += [f'{place}: {bad}' for output in outputs for bad in bad_parts(output)]
            if not re.search(r'^#\|\s*hide', source, re.M):
                problems += [f'{place}: {bad}' for output in outputs
                             for bad in hard_to_read(source, output)]
        problems += [f'{path.name} cell {id} is text, but holds code'
                     for id, source, _ in read_cells(path, 'markdown')
                     if source.startswith('#|')]
    return problems


# style

def code_lines(text):
    "Lines that are neither blank nor directives such as `#| hide`"
    return [line for line in text.splitlines()
            if line.strip() and not line.lstrip().startswith('#|')]


def long_parts(place, text):
    "A line for each line of code that is too wide and each function that is too long"
    for line in code_lines(text):
        if len(line) > MAX_WIDTH:
            yield f'{place}: {len(line)} characters, {MAX_WIDTH} allowed: {line.strip()[:50]}'
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = len(code_lines('\n'.join(lines[node.lineno - 1:node.end_lineno])))
            if length > MAX_LINES:
                yield f'{place}: {length} lines in {node.name}, {MAX_LINES} allowed'


def check_style():
    "In notebooks and scripts no line is too wide, and no cell and no function too long"
    problems = []
    for path in notebooks():
        for id, source, _ in read_cells(path, 'code'):
            place, length = f'{path.name} cell {id}', len(code_lines(source))
            if length > MAX_LINES:
                problems.append(f'{place}: {length} lines, {MAX_LINES} allowed')
            problems += long_parts(place, source)
    by_hand = ('setup.py', 'simclr_nb/__main__.py')
    others = [(name, (root / name).read_text()) for name in by_hand]
    for name, text in [*scripts_in('bench'), *scripts_in('tools'), *others]:
        problems += long_parts(name, text)
    return problems


def check_notebook(name):
    "One notebook, run from top to bottom as nbdev_test does, with one thread"
    threads = os.environ.get('OMP_NUM_THREADS', '1')
    status, said = run(scripts / 'nbdev_test', '--path', f'nbs/{name}', '--n_workers', '0',
                       cwd=root, OMP_NUM_THREADS=threads)
    return [] if status == 0 else [said.strip()[-2000:]]


CHECKS = dict(clean=check_clean, export=check_export, requirements=check_requirements,
              readme=check_readme, links=check_links, outputs=check_outputs, style=check_style)


def wanted_jobs(wanted):
    """Name -> (function, its arguments) for the checks named; for all if none is

    The last notebooks take longest, so they stand first."""
    names = [path.name for path in reversed(notebooks())]
    unknown = [word for word in wanted if word not in CHECKS and word != 'notebooks'
               and word.removeprefix('notebooks=') not in names]
    if unknown:
        sys.exit(f'no such check: {", ".join(unknown)}; '
                 f'there are {", ".join(CHECKS)}, notebooks and notebooks=NAME')
    jobs = {name: (check, ()) for name, check in CHECKS.items() if not wanted or name in wanted}
    for name in names:
        if not wanted or 'notebooks' in wanted or f'notebooks={name}' in wanted:
            jobs[name] = (check_notebook, (name,))
    return jobs


def problems_of(check, arguments):
    try:
        return check(*arguments)
    except Exception: # of the check itself: the others go on
        return [traceback.format_exc()]


def main(wanted):
    jobs = wanted_jobs(wanted)
    failed = 0
    pool = ThreadPoolExecutor(min(os.cpu_count() or 1, MAX_WORKERS))
    names = {pool.submit(problems_of, check, arguments): name
             for name, (check, arguments) in jobs.items()}
    try:
        for done in as_completed(names):
            problems = done.result()
            failed += bool(problems)
            print(f'{"FAILED" if problems else "passed"}  {names[done]}', flush=True)
            for problem in problems:
                print(f'        {problem}', flush=True)
    finally:
        pool.shutdown(cancel_futures=True) # after Ctrl-C no further check begins
    print(f'\n{len(jobs) - failed} passed, {failed} failed')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
