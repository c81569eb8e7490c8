# `make help` lists the targets. Everything runs in .venv, which the first target that needs it creates.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
READY_ARRAYS := $(VENV)/.ready-arrays
MUTMUT := $(VENV)/mutmut
SITE := _build/html
NOTEBOOKS := $(wildcard chapters/*.ipynb back-matter/*.ipynb)
CHAPTER ?= k1
PORT ?= 8000
# The book must come out the same wherever it is built.
export SOURCE_DATE_EPOCH ?= 1767225600
export MPLBACKEND := agg
export PYTHONHASHSEED := 0
# Matplotlib's list of fonts goes with the environment: another one's may name files that are gone.
export MPLCONFIGDIR := $(CURDIR)/$(VENV)/matplotlib

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' Makefile
	@echo "  One chapter: make chapter CHAPTER=k1. Another Python: make PYTHON=python3.12 book."

$(READY): requirements.lock pyproject.toml tools/bootstrap.py
	@command -v $(PYTHON) >/dev/null || { echo "There is no '$(PYTHON)' here. Install Python 3.11 or newer, or name yours: make PYTHON=python3.12 book" >&2; exit 1; }
	@$(PYTHON) tools/bootstrap.py $(VENV)

# PyTorch, JAX and Dask go into the same environment; the other targets do the same with and without them.
$(READY_ARRAYS): $(READY) requirements-arrays.lock requirements-torch.txt
	@$(PYTHON) tools/bootstrap.py $(VENV) arrays

# Beside the environment, not in it: all that is needed of mutmut are its changes of code.
$(MUTMUT)/.ready: $(READY) requirements-mutants.lock
	@rm -rf $(MUTMUT)
	@$(BIN)/python -m pip --disable-pip-version-check install --quiet --no-deps --require-hashes \
	  --target $(MUTMUT) --requirement requirements-mutants.lock
	@touch $@

.PHONY: install
install: $(READY) ## create the environment in .venv (the other targets do it when needed)

.PHONY: book
book: $(READY) ## build the site, if anything has changed, and print the path of its first page
	@$(BIN)/python bookbuild/make_site.py

.PHONY: pdf
pdf: $(READY) ## build the book as PDF (needs TeX: the command says which packages)
	@PYTHONPATH=. $(BIN)/python bookbuild/make_pdf.py

.PHONY: latex
latex: book ## each statement as LaTeX for papers: _build/html/s/LABEL.tex
	@echo "Each statement as LaTeX: $(SITE)/s/*.tex"

.PHONY: release
release: $(READY) ## make what a version publishes, in dist/, or say why there can be no release
	@PYTHONPATH=. $(BIN)/python bookbuild/release.py

.PHONY: test-pdf
test-pdf: pdf book ## compare the PDF with the site, and compile the LaTeX of all statements (needs TeX)
	@$(BIN)/pytest --quiet -n 2 tests/pdf --pdf _build/pdf --site $(SITE)

.PHONY: test
test: $(READY) ## run all tests: the package, the guards of the book, every notebook against a fresh run
	@$(BIN)/pytest --quiet -n 2 --dist loadscope --nbval tests src $(NOTEBOOKS)

.PHONY: test-unit
test-unit: $(READY) ## only the package and the guards, with branch coverage
	@$(BIN)/pytest --quiet --cov --cov-branch tests src

.PHONY: test-site
test-site: book ## open every page of the built site in headless Chromium
	@$(BIN)/pytest --quiet -n 2 --dist worksteal tests/site --site $(SITE)

.PHONY: proofs
proofs: $(READY) ## compile the formal proofs and list what they rest on (needs Coq; says which packages)
	@$(BIN)/python -m bookbuild.proofs check

.PHONY: proofs-mutants
proofs-mutants: $(READY) ## show that changed formal statements do not compile with their proofs
	@$(BIN)/python -m bookbuild.proofs mutants

.PHONY: mutants
mutants: $(READY) ## run the false neighbours of all statements through their checks (ONLY="k1 thm-gibbs")
	@$(BIN)/python -m bookbuild.mutants $(ONLY)

.PHONY: mutants-package
mutants-package: $(READY_ARRAYS) $(MUTMUT)/.ready ## change the package in small ways: its tests notice (ONLY="losses exact")
	@PYTHONPATH=$(MUTMUT) $(BIN)/python -m bookbuild.package_mutants $(ONLY)

# One thread each: the sweep runs two processes itself.
.PHONY: seeds
seeds: $(READY_ARRAYS) ## run the Monte Carlo assertions of chapters and tests with 200 other seeds (ONLY="k1 tests")
	@OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m bookbuild.seeds $(ONLY)

.PHONY: lighthouse
lighthouse: book ## what Lighthouse says of three pages on a simulated phone (needs Node; not part of the tests)
	@$(BIN)/python tools/lighthouse.py $(SITE)

.PHONY: test-arrays
test-arrays: $(READY_ARRAYS) ## the estimators and losses with PyTorch, JAX and Dask, gradients included
	@$(BIN)/pytest --quiet -n 2 --dist loadscope tests/arrays

.PHONY: chapter
chapter: $(READY) ## re-execute, test and build one chapter: make chapter CHAPTER=k1
	@$(BIN)/python bookbuild/notebooks.py chapters/$(CHAPTER).ipynb
	@$(BIN)/pytest --quiet --nbval chapters/$(CHAPTER).ipynb
	@$(MAKE) --no-print-directory book

.PHONY: page
page: $(READY) ## build one chapter alone, in seconds, to look at it: make page CHAPTER=k1
	@PYTHONPATH=. $(BIN)/python bookbuild/make_page.py chapters/$(CHAPTER)

.PHONY: notebooks
notebooks: $(READY) ## re-execute and normalise every notebook
	@$(BIN)/python bookbuild/notebooks.py $(NOTEBOOKS)

.PHONY: lab
lab: $(READY) ## open the notebooks in JupyterLab, with MyST rendering
	@MPLBACKEND= $(BIN)/jupyter lab --notebook-dir=. chapters/definition.ipynb

.PHONY: serve
serve: book ## serve the site on http://localhost:8000 (PORT=... for another)
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory $(SITE) $(PORT)

.PHONY: labels
labels: $(READY) ## freeze the labels of this version, when it is released: what it states stays, or a change is told
	@PYTHONPATH=. $(BIN)/python -m bookbuild.labels freeze

.PHONY: bench
bench: $(READY) ## time, memory and accuracy as ratios in one run (larger arrays: SIZES="10000 100000000")
	@$(BIN)/python -W ignore benchmarks/bench.py $(if $(SIZES),--sizes $(SIZES))

.PHONY: bench-vocabulary
bench-vocabulary: $(READY_ARRAYS) ## the same for whole vocabularies, against the one-liner and F.kl_div
	@$(BIN)/python -W ignore benchmarks/vocabulary.py

.PHONY: libraries
libraries: $(READY_ARRAYS) ## measure what released training libraries do (NEWEST=1: compare with today's releases)
	@PYTHONPATH=tools $(BIN)/python -m released $(if $(NEWEST),--newest)

.PHONY: faults
faults: $(READY) ## full and read-only disks, no network, odd folders, two at once, killed builds (Linux, root)
	@$(BIN)/pytest --quiet tests/faults

.PHONY: fuzz
fuzz: $(READY) ## every public function against odd arguments, for long (EXAMPLES=5000 each)
	@FUZZ_EXAMPLES=$(or $(EXAMPLES),2000) $(BIN)/pytest --quiet -n 2 tests/test_fuzz.py

.PHONY: matrix
matrix: $(READY) ## oldest and newest releases under each Python that is here (NOTEBOOKS="k1 why")
	@$(BIN)/python tools/matrix.py $(if $(NOTEBOOKS),--notebooks $(NOTEBOOKS))

.PHONY: licences
licences: $(READY_ARRAYS) ## the licences of all packages in the locks, held to tools/licences.toml
	@$(BIN)/python tools/audit.py licences

.PHONY: audit
audit: $(READY_ARRAYS) ## licences and known vulnerabilities (asks an advisory service; status 3: no answer)
	@$(BIN)/python tools/audit.py

.PHONY: reports
reports: $(READY) ## run the targets that check something and keep what they said for the page on checks (ONLY="mutants")
	@$(BIN)/python -m bookbuild.reports $(ONLY)

.PHONY: lint
lint: $(READY) ## ruff on code and notebooks, strict types, spelling
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/codespell
	@$(BIN)/python bookbuild/notebooks.py --prose $(NOTEBOOKS) | $(BIN)/codespell -

.PHONY: format
format: $(READY) ## let ruff mend what it can in code and notebooks
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# Nothing younger than a week: what a release breaks, or smuggles in, has mostly been found by then.
LOCK := $(BIN)/uv pip compile --quiet --universal --no-strip-extras --generate-hashes --upgrade \
  --exclude-newer "7 days" --fork-strategy fewest --python-version 3.11 --no-header \
  --no-emit-index-url --no-emit-find-links

.PHONY: lock
lock: $(READY) ## renew the locks: newest releases that pyproject.toml admits and that are a week old
	@$(LOCK) --all-extras --output-file requirements.lock pyproject.toml
	@$(LOCK) --constraints requirements.lock --output-file requirements-arrays.lock requirements-arrays.in
	@$(LOCK) --constraints requirements.lock --output-file requirements-audit.lock requirements-audit.in
	@$(LOCK) --no-deps --output-file requirements-mutants.lock requirements-mutants.in

.PHONY: clean
clean: ## delete what the build made; keep the environment
	@rm -rf _build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	@find . -path ./.venv -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf

.PHONY: distclean
distclean: clean ## delete the environment too
	@rm -rf $(VENV)
