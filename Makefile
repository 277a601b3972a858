# The course's commands; each sets up .venv first where that has not been done.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
NOTEBOOKS := $(sort $(wildcard notebooks/*.ipynb))

# What a check of the course needs of every training. The notebooks' own cells are run; only these make them shorter.
SHORT := QAT_MAX_EPOCHS=1 QAT_MAX_IMAGES=1000

.PHONY: run lab test notebooks bench lint clean

run: $(READY)  ## train the three nets and compare them; EPOCHS=n, DATA=auto|cifar10|shapes, ARCH=convnet|lenet
	$(BIN)/python -m qathelpers run $(if $(EPOCHS),--epochs $(EPOCHS)) $(if $(DATA),--data $(DATA)) $(if $(ARCH),--arch $(ARCH))

lab: $(READY)  ## open the course in JupyterLab
	$(BIN)/jupyter lab notebooks

# A process a core with one thread each: most of a test's time is a kernel starting, which has no use for two.
test: $(READY) lint  ## all tests, and every notebook executed on a small share of the data
	@results=$$(mktemp -d) && trap 'rm -rf "$$results"' EXIT && \
	env $(SHORT) QAT_RESULTS_DIR=$$results OMP_NUM_THREADS=1 \
	$(BIN)/python -m pytest tests notebooks --numprocesses=auto --dist=loadfile \
	--nbval-lax --nbval-current-env --nbval-cell-timeout=600 $(PYTEST)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

notebooks: .venv/.deploy  ## execute all notebooks in place, on the real data, and write their solutions
	rm -rf runs/notebooks
	QAT_DATA=cifar10 QAT_RESULTS_DIR=$(CURDIR)/runs/notebooks $(BIN)/python -m qathelpers notebooks $(NOTEBOOKS)

bench: $(READY)  ## measure training on this machine, side by side
	$(BIN)/python -m qathelpers bench

clean:  ## remove the environment and the caches, not data or runs
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis

.venv/.deploy: $(READY)  # what only the export of nets needs
	$(BIN)/python -m pip install --quiet --editable '.[deploy]'
	@touch .venv/.deploy

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 10) else "Python 3.10 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[lab,test]'
	@touch $(READY)
