"""Make README.md from nbs/index.ipynb, outputs included.

    python tools/readme.py    # or: make readme
"""
import re
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

root = Path(__file__).parent.parent


def readme_text(index=root / 'nbs/index.ipynb'):
    "README.md as it should be: the notebook without its code, with links to notebooks pointing into nbs/"
    nb = nbformat.read(index, 4)
    nb.cells = [c for c in nb.cells if c.cell_type != 'code' or '#| hide' not in c.source.splitlines()]
    for k, c in enumerate(nb.cells):
        if c.cell_type == 'code' and '#| echo: false' in c.source.splitlines(): # its Markdown outputs stand for it
            nb.cells[k] = nbformat.v4.new_markdown_cell('\n\n'.join(o.data['text/markdown'] for o in c.outputs if 'text/markdown' in o.get('data', {})))
    text, _ = MarkdownExporter().from_notebook_node(nb)
    text = re.sub(r'\]\((\d\d_\w+\.ipynb)', r'](nbs/\1', text)
    return re.sub(r'\n{3,}', '\n\n', text).strip() + '\n'


if __name__ == '__main__': (root / 'README.md').write_text(readme_text())
