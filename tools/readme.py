"""Make README.md from nbs/index.ipynb, outputs included.

    python tools/readme.py    # or: make readme
"""
import re
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

root = Path(__file__).parent.parent


def markdown_outputs(cell):
    "The Markdown that a code cell has displayed, as a cell of its own"
    shown = [output.data['text/markdown'] for output in cell.outputs
             if 'text/markdown' in output.get('data', {})]
    return nbformat.v4.new_markdown_cell('\n\n'.join(shown))


def page_cells(cells):
    "What a reader sees: no hidden cells, and of cells with `echo: false` only the outputs"
    for cell in cells:
        directives = cell.source.splitlines() if cell.cell_type == 'code' else []
        if '#| hide' in directives:
            continue
        if '#| echo: false' in directives:
            yield markdown_outputs(cell)
        else:
            yield cell


def readme_text(index=root / 'nbs/index.ipynb'):
    "README.md as it should be: the notebook without its code, with links that lead into nbs/"
    nb = nbformat.read(index, 4)
    nb.cells = list(page_cells(nb.cells))
    text, _ = MarkdownExporter().from_notebook_node(nb)
    text = re.sub(r'\]\(([\w-]+\.(ipynb|svg))', r'](nbs/\1', text)
    return re.sub(r'\n{3,}', '\n\n', text).strip() + '\n'


if __name__ == '__main__':
    (root / 'README.md').write_text(readme_text())
