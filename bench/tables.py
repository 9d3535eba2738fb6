"""The tables of parts.json, for the notebooks."""


def ratio_cell(row): # a row of parts.json
    return f"{row['times_ours']:.2f} ({row['low']:.2f} to {row['high']:.2f})"


def contest_table(rows, contests='work', who='library', ratio='time / ours'):
    """The rows of a part in Markdown: time or rate, and time / ours for each allocator

    Above 1 the first of each contest, such as ours, is faster. In brackets is the range over
    the rounds."""
    by_contest = {}
    for row in rows:
        by_allocator = by_contest.setdefault((row['contest'], row['who']), {})
        by_allocator[row['allocator']] = row
    allocators = list(dict.fromkeys(row['allocator'] for row in rows))
    head = [contests, who, 'time or rate']
    for allocator in allocators:
        head.append(ratio if allocator == 'default' else f'with {allocator}')
    lines = [head, ['---'] * len(head)]
    for (contest, name), found in by_contest.items():
        first = next(iter(found.values()))
        cells = [ratio_cell(found[name]) if name in found else '' for name in allocators]
        lines.append([contest, name, f"{first['figure']:,} {first['unit']}", *cells])
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)
