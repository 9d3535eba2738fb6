"""Break each thing that `make test` guards, one at a time on a copy of the project, and show
that its check fails there and passed before.

    python tools/breaks.py          # or: make breaks
    python tools/breaks.py style    # only the breaks that this check must catch

Ends with a line `N passed, N failed`: a break passes if its check caught it.
"""
import json
import os
import re
import subprocess
import sys

from check import CHECKS, project_copy


# ways to break something; none depends on the wording of a notebook

def replace(path, pattern, new):
    "Replace the first match of a regular expression"
    text, count = re.subn(pattern, new, path.read_text(), count=1)
    assert count, f'{path} has nothing like {pattern} to break'
    path.write_text(text)


def append(path, text):
    path.write_text(path.read_text() + text)


def change_cell(copy, notebook, fits, change):
    "Change the first cell of a notebook that fits"
    path = copy / 'nbs' / notebook
    nb = json.loads(path.read_text())
    change(next(cell for cell in nb['cells'] if fits(cell)))
    path.write_text(json.dumps(nb, indent=1, sort_keys=True, ensure_ascii=False) + '\n')


def is_text(cell):
    return cell['cell_type'] == 'markdown'


def is_text_with_name(cell): # below the title, whose cell shows nothing else
    return is_text(cell) and not ''.join(cell['source']).startswith('# ')


def is_shown(cell): # runs in tests, is no part of the package and imports nothing
    source = ''.join(cell['source'])
    other = re.search(r'^#\|\s*(export|hide|default)|import ', source, re.M)
    return cell['cell_type'] == 'code' and not other


def is_exported(cell):
    source = ''.join(cell['source'])
    return cell['cell_type'] == 'code' and source.startswith('#| export') and 'def ' in source


def has_picture(cell):
    return any('image/png' in output.get('data', {}) for output in cell.get('outputs', []))


def adds(*lines):
    "A change that adds lines to the end of a cell"
    return lambda cell: cell['source'].extend(['\n', '\n'.join(lines)])


# clean, export

def dirty_notebook(copy):
    "a dirty notebook"
    change_cell(copy, '04_ntxent.ipynb', is_shown,
                lambda cell: cell['metadata'].update(scrolled=True))


def unfolded_cell(copy):
    "a cell that the site folds and JupyterLab does not"
    change_cell(copy, '04_ntxent.ipynb', is_shown, adds('#| code-fold: true'))


def execution_count(copy):
    "an execution count"
    change_cell(copy, '04_ntxent.ipynb', is_shown, lambda cell: cell.update(execution_count=3))


def edited_module(copy):
    "an edited .py"
    append(copy / 'simclr_nb/ntxent.py', '\nEDITED = True\n')


def orphan_module(copy):
    "a .py that no notebook makes"
    replace(copy / 'simclr_nb/_modidx.py', "'simclr_nb/ntxent.py'", "'simclr_nb/other.py'")


def unexported_edit(copy):
    "an edited notebook that was not exported"
    change_cell(copy, '05_lars.ipynb', is_exported, adds('EDITED = True'))


# readme, links

def stale_readme(copy):
    "a stale README"
    replace(copy / 'README.md', r'make \w+', 'make nothing')


def changed_index(copy):
    "an index that README does not follow"
    change_cell(copy, 'index.ipynb', is_text, adds('', 'One more sentence.'))


def broken_page_link(copy):
    "a broken link to a page"
    replace(copy / 'nbs/06_accumulate.ipynb', r'\]\(\d\d\w?_\w+\.ipynb', '](99_nowhere.ipynb')


def broken_heading_link(copy):
    "a broken link to a heading"
    replace(copy / 'nbs/06_accumulate.ipynb', r'(\]\(\d\d\w?_\w+\.ipynb#)', r'\1not-')


def broken_link_to_definition(copy):
    "a link to a definition that is not there"
    change_cell(copy, '06_accumulate.ipynb', is_text_with_name,
                adds('', '[x](accumulate.html#not_there)'))


def no_description(copy):
    "a page without a description"
    change_cell(copy, '05_lars.ipynb', is_text,
                lambda cell: cell.update(source=[cell['source'][0].strip()]))


def heading_twice(copy):
    "two headings with one anchor"
    change_cell(copy, '05_lars.ipynb', is_text_with_name,
                adds('', '## Twice', '', '## Twice'))


def cell_like_heading(copy):
    "a cell with the anchor of a heading"
    replace(copy / 'tools/pages.py', r"\n +cell\.id = [^\n]*", '')


def link_in_link(copy):
    "a link that becomes a link within a link"
    change_cell(copy, '05_lars.ipynb', is_text_with_name,
                adds('', '[`accumulate`](06_accumulate.ipynb)'))


def unlisted_paper(copy):
    "a paper that the references lack"
    replace(copy / 'nbs/references.bib', r'url = \{https://arxiv', 'url = {http://elsewhere')


def unlisted_page(copy):
    "a page that is not in the sidebar"
    replace(copy / '_quarto.yml', r'\n[^\n]*\b05_lars\.ipynb[^\n]*', '')


def unreadable_page(copy):
    "a page the docs build cannot read"
    (copy / 'nbs/05_lars.ipynb').write_text('{"cells": [')


# requirements

def missing_requirement(copy):
    "a missing dependency"
    replace(copy / 'settings.ini', r' safetensors\S*', '')


def missing_dev_requirement(copy):
    "a missing dependency of the tests"
    replace(copy / 'settings.ini', r'(dev_requirements.*) scikit-learn\S*', r'\1')


def missing_bench_requirement(copy):
    "a missing dependency of the benchmark"
    replace(copy / 'settings.ini', r'(bench_requirements.*) kornia\S*', r'\1')


def missing_command(copy):
    "a command that does not exist"
    replace(copy / 'settings.ini', r'(simclr_data=simclr_nb\.cli:\w+)', r'\1_gone')


# outputs

def missing_table(copy):
    "a table of the front page that was not stored"
    change_cell(copy, 'index.ipynb', lambda cell: cell['id'] == 'table',
                lambda cell: cell.update(outputs=[]))


def missing_picture(copy):
    "a picture that was not stored"
    change_cell(copy, '05_lars.ipynb', has_picture, lambda cell: cell.update(outputs=[]))


def unrun_cell(copy):
    "a cell that is never run"
    change_cell(copy, '05_lars.ipynb', is_shown,
                lambda cell: cell['source'].insert(0, '#| eval: false\n'))


def stored_warning(copy):
    "a stored warning"
    warning = {'name': 'stderr', 'output_type': 'stream', 'text': ['UserWarning']}
    change_cell(copy, '04_ntxent.ipynb', is_shown, lambda cell: cell['outputs'].append(warning))


def no_alt_text(copy):
    "a picture without words for those who cannot see it"
    def without_alt(cell):
        cell['source'] = [line for line in cell['source'] if 'fig-alt' not in line]
    change_cell(copy, '05_lars.ipynb', has_picture, without_alt)


def colon_in_directive(copy):
    "a directive that YAML cannot read"
    def with_colon(cell):
        cell['source'].insert(0, '#| fig-cap: one: two\n')
    change_cell(copy, '05_lars.ipynb', has_picture, with_colon)


def shown_text(*lines):
    "A change that makes a cell have printed these lines"
    output = {'name': 'stdout', 'output_type': 'stream', 'text': list(lines)}
    return lambda cell: cell['outputs'].append(output)


def table_as_text(copy):
    "a Markdown table shown as text"
    change_cell(copy, '04_ntxent.ipynb', is_shown, shown_text('| a | b |\n', '|---|---|\n'))


def wide_output(copy):
    "a shown line of 101 characters"
    change_cell(copy, '04_ntxent.ipynb', is_shown, shown_text(101 * 'x'))


def code_as_text(copy):
    "code in a cell for text"
    change_cell(copy, '04_ntxent.ipynb', is_text,
                lambda cell: cell['source'].insert(0, '#| echo: false\n'))


# style

def wide_line(copy):
    "a line of 97 characters in a notebook"
    change_cell(copy, '05_lars.ipynb', is_shown, adds('# ' + 95 * 'x'))


def long_cell(copy):
    "a cell of more than 40 lines"
    change_cell(copy, '05_lars.ipynb', is_shown, adds(*41 * ['pass']))


def long_function(copy):
    "a function of 41 lines in a script"
    append(copy / 'bench/killed.py', '\n\ndef long():\n' + 40 * '    pass\n')


def wide_script(copy):
    "a line of 97 characters in setup.py"
    append(copy / 'setup.py', '# ' + 95 * 'x' + '\n')


def wide_main(copy):
    "a line of 97 characters in the module that is written by hand"
    append(copy / 'simclr_nb/__main__.py', '# ' + 95 * 'x' + '\n')


# notebooks

def failing_cell(copy):
    "a failing cell"
    change_cell(copy, '04_ntxent.ipynb', is_shown, adds("assert False, 'broken'"))


def broken_import(copy):
    "a package that cannot be imported"
    append(copy / 'simclr_nb/resnet.py', '\nimport no_such_package\n')


# what a GPU would do otherwise, which tests show without one

def in_cell(words, notebook, cell_id, old, new):
    "A break that puts other code into the cell of a notebook that has this id"
    def make_break(copy):
        def change(cell):
            source = ''.join(cell['source'])
            assert old in source, f'{notebook} has no {old!r} in {cell_id} to break'
            cell['source'] = source.replace(old, new, 1).splitlines(keepends=True)
        change_cell(copy, notebook, lambda cell: cell['id'] == cell_id, change)
    make_break.__doc__ = words
    return make_break


ON_A_GPU = ( # words, notebook, id of a cell, code in it, other code
    ('a norm that leaves bfloat16 under autocast', '03_resnet.ipynb', 'make-norm',
     'with no_autocast(x.device):', 'if True:'),
    ('an augmentation that asks the device for a number', '02_augment.ipynb', 'apply',
     'return self._make_views(', 'return draws.any() and self._make_views('),
    ('an optimiser that asks the device for its mask', '05_lars.ipynb', 'step-group',
     'if where is None:', 'if where is None or where:'),
    ('an optimiser that goes from tensor to tensor', '05_lars.ipynb', 'foreach-steps',
     'torch.stack(torch._foreach_norm(ws))', 'torch.stack([w.norm() for w in ws])'),
    ('a mask that forgets the velocities', '05_lars.ipynb', 'step-group',
     'zip([*ws, *vs], [*new_ws, *new_vs])', 'zip(ws, new_ws)'),
    ('a training step that asks the device for the loss', '09_train.ipynb', 'start-step',
     "is_finite.device.type not in ('cpu', 'mps')", 'bool(is_finite)'),
    ('a callback that is not shown the last row', '09_train.ipynb', 'may-wait',
     'and not is_watched', ''))


def on_a_gpu(notebook):
    "The breaks of the table above in one notebook"
    return tuple(in_cell(words, page, *change) for words, page, *change in ON_A_GPU
                 if page == notebook)


BREAKS = { # check that must catch them -> breaks
    'clean': (dirty_notebook, unfolded_cell, execution_count),
    'export': (edited_module, orphan_module, unexported_edit),
    'readme': (stale_readme, changed_index),
    'links': (broken_page_link, broken_heading_link, broken_link_to_definition, no_description,
              heading_twice, cell_like_heading, link_in_link, unlisted_paper, unlisted_page,
              unreadable_page),
    'requirements': (missing_requirement, missing_dev_requirement, missing_bench_requirement,
                     missing_command),
    'outputs': (missing_picture, missing_table, unrun_cell, stored_warning,
                code_as_text, no_alt_text, colon_in_directive, table_as_text, wide_output),
    'style': (wide_line, long_cell, long_function, wide_script, wide_main),
    'notebooks=04_ntxent.ipynb': (failing_cell,),
    'notebooks=05_lars.ipynb': (broken_import, *on_a_gpu('05_lars.ipynb')),
    'notebooks=02_augment.ipynb': on_a_gpu('02_augment.ipynb'),
    'notebooks=03_resnet.ipynb': on_a_gpu('03_resnet.ipynb'),
    'notebooks=09_train.ipynb': on_a_gpu('09_train.ipynb')}


def checked(folder, check):
    "Exit status and output of a check in a copy of the project"
    p = subprocess.run([sys.executable, folder / 'tools/check.py', check], cwd=folder,
                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, text=True,
                       env=os.environ | {'PYTHONPATH': str(folder)})
    return p.returncode, p.stdout.strip()


def passes_unbroken(check):
    with project_copy() as copy:
        return checked(copy, check)[0] == 0


def is_caught(make_break, check, sound):
    "Break a copy; whether the check that was `sound` before fails there. Prints a line"
    with project_copy() as copy:
        make_break(copy)
        status, said = checked(copy, check)
    caught = sound and status == 1
    reasons = [line.strip() for line in said.splitlines() if line.startswith('        ')]
    reason = reasons[0] if reasons else said[-200:]
    remark = '' if sound else ' (which fails even without the break)'
    verdict = 'caught' if caught else 'MISSED'
    print(f'{verdict}  {make_break.__doc__}, by {check}{remark}: {reason[:150]}', flush=True)
    return caught


def main(wanted):
    unknown = set(wanted) - set(BREAKS)
    if unknown:
        sys.exit(f'no breaks for {", ".join(sorted(unknown))}; there are {", ".join(BREAKS)}')
    assert set(CHECKS) <= set(BREAKS), 'every check needs a break that it catches'
    caught = []
    for check, breaks in BREAKS.items():
        if not wanted or check in wanted:
            sound = passes_unbroken(check)
            caught += [is_caught(make_break, check, sound) for make_break in breaks]
    print(f'\n{sum(caught)} passed, {len(caught) - sum(caught)} failed')
    return 0 if all(caught) else 1


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
