"""What a commit needs: clean notebooks, in which JupyterLab folds what the site folds or hides,
and the package and README.md made from them.

    python tools/tidy.py          # or: make tidy
    python tools/tidy.py clean    # only the notebooks
"""
import re
import subprocess
import sys
from pathlib import Path

from execnb.nbio import read_nb, write_nb

root = Path(__file__).resolve().parent.parent
SAYS_MOST = re.compile(r'^#\| (fig-cap|code-summary): .*\n', re.M) # of the directives
FOLDED = re.compile(r'#\| *(hide|echo: *false|code-fold: *true)$', re.M) # directives


def say_most_first(source):
    "A folded cell shows its first line: its caption or its summary, if it has one"
    found = SAYS_MOST.search(source)
    if not found:
        return source
    return found[0] + source.replace(found[0], '', 1)


def fold(path):
    """The source of cells that the site folds or hides is folded, in the notebook itself

    So are the outputs of answers."""
    nb = read_nb(path)
    for cell in nb.cells:
        if cell.cell_type == 'code' and FOLDED.search(cell.source):
            cell.source = say_most_first(cell.source)
            cell.metadata['jupyter'] = {'source_hidden': True}
            if '#| code-summary: "Answer' in cell.source:
                cell.metadata['jupyter']['outputs_hidden'] = True
        else:
            cell.metadata.pop('jupyter', None)
    write_nb(nb, path)


def main(wanted):
    scripts = Path(sys.executable).parent
    subprocess.run([scripts / 'nbdev_clean'], cwd=root, check=True)
    for path in sorted((root / 'nbs').glob('*.ipynb')):
        fold(path)
    if wanted != ['clean']:
        subprocess.run([scripts / 'nbdev_export'], cwd=root, check=True)
        subprocess.run([sys.executable, root / 'tools/readme.py'], cwd=root, check=True)


if __name__ == '__main__':
    main(sys.argv[1:])
