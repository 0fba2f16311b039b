# `make demo` and `make test` need nothing but Python 3.11-3.13: the first target that runs makes .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: demo test test-slow test-beam coverage mutate matrix release-check release lint english format bench docs screenshots site publish notebooks clean help

help:
	@echo "make demo       train, evaluate, export and show an embedder on embedded data (minutes)"
	@echo "make test       the default tests;  make test-slow: the rest;  make test-beam: bulk embedding on Apache Beam"
	@echo "make coverage   the default tests, and which lines of the package they run"
	@echo "make mutate     plant faults in the package and see whether the tests notice -> docs/mutation.md"
	@echo "make matrix     the default tests on several sets of versions -> docs/compatibility.md"
	@echo "make release-check  build what is published, compare it with the repository, install and use it"
	@echo "make lint       ruff: format and lint; mypy: types, strictly;  make format: mend what can be mended"
	@echo "make english    the pages' English: proselint, the project's words, long sentences"
	@echo "make bench      speed against other libraries, as ratios in one run -> docs/benchmarks.md"
	@echo "make docs       write the pages that are generated from docstrings"
	@echo "make screenshots  of the demo's report, its search page and the command line -> docs/pictures/screenshots"
	@echo "make site       build the documentation's site, strictly -> build/site/index.html"
	@echo "make publish    put the site of VERSION=0.2 on the branch gh-pages, beside other versions; nothing is pushed"
	@echo "make notebooks  turn the tutorials into notebooks -> build/notebooks"

# One stamp a set of extras: an environment is made once, and again when its requirements change.
$(VENV)/.core: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13) and 'tf_detreg needs Python 3.11 to 3.13: make PYTHON=python3.11 ...')"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[all]"
	touch $@

$(VENV)/.dev: $(VENV)/.core
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

$(VENV)/.bench: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[bench]"
	touch $@

demo: $(VENV)/.core
	$(BIN)/tf-detreg demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow -n 2

# Apache Beam wants an older protobuf and Pillow than the rest, so its tests have an environment of their own.
# `report` brings what calibrates a decision, which an index in shards takes.
BEAM := .venv-beam
$(BEAM)/.ready: pyproject.toml constraints-beam.txt
	test -x $(BEAM)/bin/python || $(PYTHON) -m venv $(BEAM)
	$(BEAM)/bin/python -m pip install --quiet -c constraints-beam.txt -e ".[beam,cli,report]" pytest
	touch $@

test-beam: $(BEAM)/.ready
	$(BEAM)/bin/python -m pytest tests/retrieval/test_bulk_embed.py tests/retrieval/test_bulk_embed_cli.py tests/index/test_sharding.py

# Below this share of lines the command fails; the page of planted faults says more than the share does.
FLOOR := 90
coverage: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --cov=tf_detreg --cov-report=term:skip-covered --cov-fail-under=$(FLOOR)

MUTATE ?= --measure --count 300 --seed 0
mutate: $(VENV)/.dev
	$(BIN)/python -m tools.mutation $(MUTATE)

# MATRIX takes the options of `python -m tools.matrix`, such as `newest --chosen`.
MATRIX ?=
matrix: $(VENV)/.dev
	$(BIN)/python -m tools.matrix $(MATRIX)

$(VENV)/.release: $(VENV)/.core
	$(BIN)/python -m pip install --quiet -c constraints.txt "build>=1.2" "twine>=6.1"
	touch $@

# RELEASE takes the options of `python -m tools.release`, such as `--python python3.13 --newest` or `--no-demo`.
RELEASE ?=
release-check: $(VENV)/.release
	$(BIN)/python -m tools.release check $(RELEASE)

release: $(VENV)/.release
	$(BIN)/python -m tools.release tag $(RELEASE)

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.bench
	for script in benchmarks/bench_*.py; do $(BIN)/python $$script || exit 1; done
	$(BIN)/python benchmarks/report.py

docs: $(VENV)/.dev
	$(BIN)/python docs/generate_losses.py

# Needs the run of `make demo`, and Chromium with its driver.
screenshots: $(VENV)/.dev
	$(BIN)/python docs/screenshots.py

# The site reads the source without importing it, so its environment holds no TensorFlow.
SITE := .venv-site
$(SITE)/.ready: pyproject.toml constraints-docs.txt
	test -x $(SITE)/bin/python || $(PYTHON) -m venv $(SITE)
	$(SITE)/bin/python -m pip install --quiet -r constraints-docs.txt
	touch $@

site: $(SITE)/.ready
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=. $(SITE)/bin/python -m mkdocs build --quiet

# Each version of the site is a directory of the branch gh-pages; ALIAS names the one that visitors get.
VERSION ?= dev
ALIAS ?=
publish: $(SITE)/.ready
	PATH="$(abspath $(SITE))/bin:$$PATH" NO_MKDOCS_2_WARNING=1 PYTHONPATH=. mike deploy --update-aliases --alias-type redirect $(VERSION) $(ALIAS)
	test -z "$(ALIAS)" || PATH="$(abspath $(SITE))/bin:$$PATH" mike set-default $(ALIAS)

english: $(SITE)/.ready
	$(SITE)/bin/python -m tools.english

# Beside a copy of the pictures, where their links lead.
KERNEL := {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
notebooks: $(SITE)/.ready
	mkdir -p build/notebooks
	for page in docs/tutorials/[!R]*.md; do $(SITE)/bin/python -m jupytext --quiet --to ipynb --update-metadata '$(KERNEL)' --output build/notebooks/$$(basename $$page .md).ipynb $$page || exit 1; done
	cp -R docs/pictures build/

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
