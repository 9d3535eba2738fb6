"""`python -m simclr_nb COMMAND ..` does what `simclr_COMMAND ..` does

Written by hand; the rest is in 12_cli."""
import sys

from simclr_nb.cli import main

if __name__ == '__main__':
    main(sys.argv[1:])
