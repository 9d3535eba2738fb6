"""Make the pages of the site from the notebooks: notebooks in _proc, which Quarto renders into
_docs.

    python tools/pages.py           # or: make docs
    python tools/pages.py _proc     # only the notebooks for Quarto, which need no Quarto
"""
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
from nbdev.config import get_config
from nbdev.doclinks import NbdevLookup
from nbdev.quarto import refresh_quarto_yml
from nbdev.serve import proc_nbs
from nbdev.showdoc import BasicMarkdownRenderer

FOLD_FROM = 30 # lines of source, from which on a definition is folded


class Definition(BasicMarkdownRenderer):
    """The heading of an exported definition, with the first line of its docstring

    Parameters and the rest stand in its source below. `renderer` of settings.ini names this
    class."""
    def __init__(self, sym, name=None, title_level=3):
        definition = getattr(sym, 'fget', sym) # of a property its function
        name = name or definition.__qualname__
        super().__init__(sym, name=name, title_level=title_level)
        self.fn = name
        if definition.__module__ not in ('__main__', 'builtins'):
            self.fn = f'{definition.__module__}.{name}'

    def _repr_markdown_(self):
        source = NbdevLookup().code(self.fn)
        link = f'[source]({source}){{target="_blank" style="float:right; font-size:smaller"}}'
        first_line = (self.docs or '').strip().split('\n')[0]
        return f'{link if source else ""}\n\n### {self.nm}\n\n*{first_line}*\n'


def with_local_links(text, site):
    "Links to pages of the site without its address, so that they work wherever it lies"
    return text.replace(f']({site}/', '](')


def with_alt_text(text):
    "Drawings that stand alone, with their caption as alternative text, too"
    return re.sub(r'^!\[(.+)\]\(([\w.-]+)\)$', r'![\1](\2){fig-alt="\1"}', text, flags=re.M)


def fold_long_source(source):
    """Exported source of many lines is folded, with their number in its summary

    A cell that says itself `#| code-fold: true` or `#| code-fold: show` has its way."""
    if 'code-summary: "Exported source"' not in source:
        return source
    first, *own = re.findall(r'^#\| code-fold: \w+\n', source, re.M) # the first is nbdev's
    body = re.sub(r'^#\| code-fold: \w+\n', '', source, flags=re.M)
    lines = [line for line in body.splitlines() if not line.startswith('#|')]
    is_folded = 'true' in own[0] if own else len(lines) >= FOLD_FROM
    if not is_folded:
        return first + body
    summary = f'"Exported source, {len(lines)} lines"'
    return '#| code-fold: true\n' + body.replace('"Exported source"', summary, 1)


def with_name_of_fold(source, has_output):
    "A folded cell without a summary of its own says what it holds, and in how many lines"
    if '#| code-fold: true' not in source or '#| code-summary' in source:
        return source
    lines = [line for line in source.splitlines() if not line.startswith('#|')]
    kind = 'Code'
    if '#| fig-cap' in source:
        kind = 'Code of the figure'
    elif not has_output and re.search(r'\b(test_\w+|assert|refused)\b', '\n'.join(lines)):
        kind = 'Tests'
    count = '1 line' if len(lines) == 1 else f'{len(lines)} lines'
    return f'#| code-summary: "{kind}, {count}"\n{source}'


def with_minus_signs(text):
    "Hyphens before numbers as minus signs, but for those in code and in addresses"
    parts = re.split(r'(`[^`]*`|\]\([^)]*\)|<[^>]*>)', text)
    for k in range(0, len(parts), 2):
        parts[k] = re.sub(r'(^|(?<=[\s(|\[]))-(?=\d)', '\N{MINUS SIGN}', parts[k], flags=re.M)
    return ''.join(parts)


def are_sentences(cell):
    "Whether what a cell prints has no columns, so that its lines may be broken"
    printed = ''.join(output.text for output in cell.outputs if output.output_type == 'stream')
    return bool(printed) and not re.search(r'\S {2,}|^ |^[$#>|]', printed, re.M)


def answer_in_a_box(cell):
    "A cell that is an answer to an exercise, in a box that opens, its outputs with it"
    summary = re.search(r'^#\| code-summary: "(Answer.*)"\n', cell.source, re.M)
    if not summary:
        return [cell]
    cell.source = re.sub(r'^#\| code-(fold|summary): .*\n', '', cell.source, flags=re.M)
    new = nbformat.v4.new_markdown_cell
    look = 'collapse="true" appearance="simple"'
    return [new(f'::: {{.callout-note {look} title="{summary[1]}"}}'), cell, new(':::')]


def as_text(cell):
    "A cell whose whole output is sections of a page, as text: the list at the side knows them"
    if cell.cell_type != 'code' or '#| output: asis' not in cell.source:
        return cell
    text = '\n'.join(output.get('data', {}).get('text/markdown', '') for output in cell.outputs)
    if not re.search(r'^## ', text, re.M):
        return cell
    return nbformat.v4.new_markdown_cell(text)


def papers(text, bibliography):
    "The keys of the entries of a BibTeX file whose address a text links to"
    entries = re.findall(r'^@\w+\{([^,]+),.*?url = \{([^}]+)\}', bibliography, re.M | re.S)
    return [key for key, address in entries if f']({address})' in text]


def references(text, folder):
    "Front matter and a last section for the papers that a page links to; both may be empty"
    keys = papers(text, (folder / 'references.bib').read_text())
    if not keys:
        return '', ''
    cited = ', '.join(f'@{key}' for key in keys)
    front = f"bibliography: references.bib\nnocite: '{cited}'\n"
    return front, '## References\n\n::: {#refs}\n:::'


def colab_address(name, config):
    return (f'https://colab.research.google.com/github/{config.user}/{config.repo}/blob/'
            f'{config.branch}/{config.nbs_path.name}/{name}')


def finish_page(path, config):
    "Change what nbdev has made of a notebook to what the site shows"
    nb = nbformat.read(path, 4)
    site = f'{config.doc_host}{config.doc_baseurl}'
    text = '\n'.join(cell.source for cell in nb.cells if cell.cell_type == 'markdown')
    front, last_section = references(text, path.parent)
    colab = colab_address(path.name, config)
    front += f'code-links:\n  - text: Open in Colab\n    icon: cloud\n    href: {colab}\n'
    front += 'image: card.png\n' # cards cannot show drawings in SVG
    cells = []
    for cell in nb.cells:
        if cell.cell_type == 'raw' and cell.source.startswith('---'):
            start = cell.source.rstrip().removesuffix('---').rstrip()
            cell.source = f'{start}\n{front}---\n'
        if cell.cell_type == 'markdown':
            cell.source = with_alt_text(with_local_links(cell.source, site))
        if cell.cell_type == 'code':
            source = with_name_of_fold(fold_long_source(cell.source), bool(cell.outputs))
            cell.source = '#| classes: sentences\n' + source if are_sentences(cell) else source
            cell.id = f'cell-{cell.id}'[:64] # an anchor beside those of headings
        for output in cell.get('outputs', []):
            text = output.get('data', {}).get('text/markdown')
            if text:
                text = with_minus_signs(with_local_links(''.join(text), site))
                output.data['text/markdown'] = text
        cells += answer_in_a_box(as_text(cell))
    # at the side of the page on a wide screen, at its end on a phone
    cells.append(nbformat.v4.new_markdown_cell(f'[Open in Colab]({colab}){{.on-phones}}'))
    nb.cells = cells
    if last_section:
        nb.cells.append(nbformat.v4.new_markdown_cell(last_section))
    nbformat.write(nb, path)


def make_pages():
    "The folder of the notebooks that Quarto renders"
    config = get_config()
    refresh_quarto_yml()
    folder = proc_nbs(force=True)
    for path in sorted(folder.glob('*.ipynb')):
        finish_page(path, config)
    return folder, config


def main(wanted):
    if wanted not in ([], ['_proc']):
        sys.exit(__doc__)
    if not wanted and not shutil.which('quarto'):
        sys.exit('make docs needs quarto, which is not in the package registries: '
                 'https://quarto.org/docs/get-started/')
    folder, config = make_pages()
    if wanted:
        return
    subprocess.run(['quarto', 'render', '--no-cache'], cwd=folder, check=True)
    shutil.rmtree(config.doc_path, ignore_errors=True)
    shutil.move(folder / config.doc_path.name, config.doc_path)


if __name__ == '__main__':
    main(sys.argv[1:])
