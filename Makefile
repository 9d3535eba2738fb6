# `make pretrain` and `make test` set up everything they need; the others follow the same pattern.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
$(if $(PYTHON),,$(error needs Python 3.11 or newer; none was found: make PYTHON=/path/to/python ...))
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help pretrain test breaks bench lab docs readme tidy clean

help:
	@echo 'make pretrain   learn from the bundled CIFAR-10 sample and print a table (some minutes)'
	@echo 'make test       notebooks clean, package exported, notebooks run, README and links right'
	@echo 'make breaks     break each of those things on a copy and show the check that catches it'
	@echo 'make bench      the parts beside other libraries: speed, memory, equality (half an hour)'
	@echo 'make lab        open the notebooks in JupyterLab'
	@echo 'make docs       build the site into _docs (needs quarto)'
	@echo 'make readme     make README.md from nbs/index.ipynb'
	@echo 'make tidy       clean and fold the notebooks, make the package and README.md from them'

# The mark of a finished installation is a file, so an interrupted one is taken up again.
.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'needs Python 3.11 or newer: make PYTHON=/path/to/python ...'; exit 1; }
	$(PYTHON) -m venv .venv

.venv/run.done: settings.ini setup.py | .venv/bin/pip
	@echo 'installing into .venv; PyTorch is large, this takes a few minutes the first time'
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

.venv/dev.done: settings.ini setup.py | .venv/bin/pip
	@echo 'installing into .venv what tests and notebooks need'
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch .venv/run.done $@

.venv/bench.done: settings.ini setup.py | .venv/bin/pip
	@echo 'installing into .venv the libraries to compare with'
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@touch .venv/run.done $@

pretrain: .venv/run.done
	.venv/bin/simclr_pretrain

test: .venv/dev.done
	.venv/bin/python tools/check.py

breaks: .venv/dev.done
	.venv/bin/python tools/breaks.py

bench: .venv/bench.done
	.venv/bin/python bench/parts.py

lab: .venv/dev.done
	.venv/bin/jupyter lab nbs

docs: .venv/dev.done
	.venv/bin/python tools/pages.py

readme: .venv/dev.done
	.venv/bin/python tools/readme.py

tidy: .venv/dev.done
	.venv/bin/python tools/tidy.py

clean:
	rm -rf _proc _docs nbs/nbdev.yml nbs/sidebar.yml
