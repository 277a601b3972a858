# The course's commands; each sets up .venv first where that has not been done.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
NOTEBOOKS := $(sort $(wildcard notebooks/*.ipynb))

# What a check of the course needs of every training. The notebooks' own cells are run; only these make them shorter.
SHORT := QAT_MAX_EPOCHS=1 QAT_MAX_IMAGES=1000

# In a bundle from a USB stick everything that pip needs lies in wheels/.
OFFLINE := $(if $(wildcard wheels),PIP_NO_INDEX=1 PIP_FIND_LINKS=wheels)
BUNDLE := build/qat-course
CACHED := $(or $(QAT_CACHE_DIR),data/cifar10)/cifar10.safetensors

.PHONY: run lab test notebooks badges bundle bench lint clean

run: $(READY)  ## train the three nets and compare them; EPOCHS=n, DATA=auto|cifar10|shapes, ARCH=convnet|sharpnet|lenet
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

badges: $(READY)  ## write the address in pyproject.toml into the notebooks and the README
	$(BIN)/python -m qathelpers badges

# The last commit, so that nothing half done goes round a room. Without a copy of CIFAR-10 it is made all the same.
bundle: $(READY)  ## one archive for a USB stick: the course, the packages for this Python and system, the data
	rm -rf $(BUNDLE) $(BUNDLE).tar && mkdir -p $(BUNDLE)/data/cifar10
	git archive HEAD | tar -x -C $(BUNDLE)
	$(BIN)/python -m pip wheel --quiet --wheel-dir $(BUNDLE)/wheels '$(BUNDLE)[lab,test]' setuptools wheel
	rm -rf $(BUNDLE)/build $(BUNDLE)/*.egg-info $(BUNDLE)/wheels/qathelpers-*
	$(BIN)/python qathelpers/wheels.py > $(BUNDLE)/wheels/made-for.txt
	@QAT_DATA=cifar10 $(BIN)/python -m qathelpers data && cp "$(CACHED)" $(BUNDLE)/data/cifar10/ || \
	echo "No CIFAR-10 in the bundle: where it is unpacked, drawn shapes stand in."
	@echo "$(BUNDLE).tar is for $$(cat $(BUNDLE)/wheels/made-for.txt)."
	tar -cf $(BUNDLE).tar -C build qat-course
	rm -rf $(BUNDLE)

bench: $(READY)  ## measure training on this machine, side by side
	$(BIN)/python -m qathelpers bench

clean:  ## remove the environment and the caches, not data or runs
	rm -rf .venv build .pytest_cache .ruff_cache .hypothesis

.venv/.deploy: $(READY)  # what only the export of nets needs
	$(BIN)/python -m pip install --quiet --editable '.[deploy]'
	@touch .venv/.deploy

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 10) else "Python 3.10 or newer is needed: make PYTHON=python3.12")'
	@$(if $(OFFLINE),$(PYTHON) qathelpers/wheels.py wheels)
	$(PYTHON) -m venv .venv
	$(OFFLINE) $(BIN)/python -m pip install --quiet --editable '.[lab,test]'
	@touch $(READY)
