"""What the scripts with long runs have in common on their command line."""
from pathlib import Path


def take_folder(words, default): # words: of the command line; --out FOLDER is taken out of them
    "The folder for runs that --out names, else the default"
    if '--out' not in words:
        return default
    place = words.index('--out')
    folder = Path(words[place + 1])
    del words[place:place + 2]
    return folder
