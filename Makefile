# The commands of the course. Each sets up .venv first if that has not been done yet; docs/install.md says how to do the
# same without make.
PYTHON ?= python3
TORCH ?= auto
BIN := .venv/bin

.PHONY: environment run lab test lint notebooks badges wheel bundle site slides demo bench clean

run: environment  ## train the three nets and compare them; EPOCHS=n, DATA=auto|cifar10|shapes, ARCH=convnet|sharpnet|lenet
	$(BIN)/python -m qathelpers run $(if $(EPOCHS),--epochs $(EPOCHS)) $(if $(DATA),--data $(DATA)) $(if $(ARCH),--arch $(ARCH))

lab: environment  ## open the course in JupyterLab
	$(BIN)/python -m qathelpers lab

test: environment lint  ## run the tests, and every notebook on a small part of the data; PYTEST='-m slow' runs the slow tests
	$(BIN)/python -m tools.run_tests $(PYTEST)

lint: environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

notebooks: EXTRAS += deploy
notebooks: environment  ## execute all notebooks in place, on CIFAR-10, and write their solutions
	rm -rf runs/notebooks
	QAT_DATA=cifar10 QAT_RESULTS_DIR="$(CURDIR)/runs/notebooks" $(BIN)/python -m tools.notebooks notebooks/*.ipynb

badges: environment  ## copy the repository's address and the version into the notebooks and the README
	$(BIN)/python -m tools.badges

wheel: environment  ## write dist/qathelpers-VERSION-py3-none-any.whl, which has the recorded runs and weights
	rm -rf build/lib build/bdist.*  # a module that was removed would otherwise stay in the wheel
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

bundle: environment  ## make one archive for a USB stick: the course, the packages for this Python and system, CIFAR-10
	$(BIN)/python -m tools.bundle

site: EXTRAS += site
site: environment  ## build the website of the course into build/site/html
	$(BIN)/python -m tools.site

slides: environment  ## make a page of slides from each notebook, in build/slides
	$(BIN)/python -m tools.slides

bench: environment  ## measure how fast training is on this machine
	$(BIN)/python -m tools.training_benchmark

demo: environment  ## build a page on which low-bit nets run in a browser; SERVE=1 serves it, ADDRESS=0.0.0.0 to a whole room
	$(BIN)/python -m qathelpers demo $(if $(SERVE),--serve) $(if $(ADDRESS),--address $(ADDRESS))

clean:  ## remove the environment and the caches; data and runs stay
	rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis

# TORCH=cpu|cuda|auto chooses the build of PyTorch, EXTRAS names more extras of pyproject.toml
environment:
	@"$(PYTHON)" tools/install.py --torch $(TORCH) $(EXTRAS)
