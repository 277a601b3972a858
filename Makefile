# The commands of the course. Each sets up .venv first if that has not been done yet.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
NOTEBOOKS := $(sort $(wildcard notebooks/*.ipynb))

# The tests run the notebooks' cells unchanged; these settings only make every training short.
SHORT := QAT_MAX_EPOCHS=1 QAT_MAX_IMAGES=1000

# A bundle (see the target `bundle`) has a folder wheels/ with all packages, so pip needs no network.
OFFLINE := $(if $(wildcard wheels),PIP_NO_INDEX=1 PIP_FIND_LINKS=wheels)
BUNDLE := build/qat-course
CACHED := $(or $(QAT_CACHE_DIR),data/cifar10)/cifar10.safetensors

.PHONY: run lab test notebooks badges bundle bench lint clean

run: $(READY)  ## train the three nets and compare them; EPOCHS=n, DATA=auto|cifar10|shapes, ARCH=convnet|sharpnet|lenet
	$(BIN)/python -m qathelpers run $(if $(EPOCHS),--epochs $(EPOCHS)) $(if $(DATA),--data $(DATA)) $(if $(ARCH),--arch $(ARCH))

lab: $(READY)  ## open the course in JupyterLab
	$(BIN)/jupyter lab notebooks

# One process per core, with one thread each: most of the time is spent starting notebook kernels, which is
# single-threaded.
test: $(READY) lint  ## run the tests, and every notebook on a small part of the data; PYTEST='-m slow' runs the slow tests
	@results=$$(mktemp -d) && trap 'rm -rf "$$results"' EXIT && \
	env $(SHORT) QAT_RESULTS_DIR=$$results OMP_NUM_THREADS=1 \
	$(BIN)/python -m pytest tests $(NOTEBOOKS) --numprocesses=auto --dist=loadfile \
	--nbval-lax --nbval-current-env --nbval-cell-timeout=600 -m "not slow" $(PYTEST)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

notebooks: .venv/.deploy  ## execute all notebooks in place, on CIFAR-10, and write their solutions
	rm -rf runs/notebooks
	QAT_DATA=cifar10 QAT_RESULTS_DIR=$(CURDIR)/runs/notebooks $(BIN)/python -m tools.notebooks $(NOTEBOOKS)

badges: $(READY)  ## copy the repository's address from pyproject.toml into the notebooks and the README
	$(BIN)/python -m tools.badges

# The bundle holds the last commit, so that no unfinished change is handed out. If there is no CIFAR-10, it is left out.
bundle: $(READY)  ## make one archive for a USB stick: the course, the packages for this Python and system, CIFAR-10
	rm -rf $(BUNDLE) $(BUNDLE).tar && mkdir -p $(BUNDLE)/data/cifar10
	git archive HEAD | tar -x -C $(BUNDLE)
	$(BIN)/python -m pip wheel --quiet --wheel-dir $(BUNDLE)/wheels '$(BUNDLE)[lab,test]' setuptools wheel
	rm -rf $(BUNDLE)/build $(BUNDLE)/*.egg-info $(BUNDLE)/wheels/qathelpers-*
	$(BIN)/python tools/wheels.py > $(BUNDLE)/wheels/made-for.txt
	@QAT_DATA=cifar10 $(BIN)/python -m qathelpers data && cp "$(CACHED)" $(BUNDLE)/data/cifar10/ || \
	echo "The bundle has no CIFAR-10: where it is unpacked, the course uses drawn shapes instead."
	@echo "$(BUNDLE).tar is for $$(cat $(BUNDLE)/wheels/made-for.txt)."
	tar -cf $(BUNDLE).tar -C build qat-course
	rm -rf $(BUNDLE)

bench: $(READY)  ## measure how fast training is on this machine
	$(BIN)/python -m tools.training_benchmark

clean:  ## remove the environment and the caches; data and runs stay
	rm -rf .venv build .pytest_cache .ruff_cache .hypothesis

.venv/.deploy: $(READY)  # packages that are needed only for exporting nets
	$(BIN)/python -m pip install --quiet --editable '.[deploy]'
	@touch .venv/.deploy

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 10) else "The course needs Python 3.10 or newer: choose one, as in make PYTHON=python3.12")'
	@$(if $(OFFLINE),$(PYTHON) tools/wheels.py wheels)
	$(PYTHON) -m venv .venv
	$(OFFLINE) $(BIN)/python -m pip install --quiet --editable '.[lab,test]'
	@touch $(READY)
