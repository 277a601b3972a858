#!/usr/bin/env bash
# Execute every notebook in an environment like Colab's, then run the tests of the widgets. The environment has Colab's
# versions of numpy, ipywidgets, IPython and ipykernel (August 2026). As on Colab, every kernel has imported
# google.colab, and the course is missing until a notebook's setup cell installs it from git (the last commit).
set -euo pipefail
cd "$(dirname "$0")/.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
unset PYTHONPATH
packages='import sysconfig; print(sysconfig.get_path("purelib"))'
course=$(.venv/bin/python -c "$packages")
.venv/bin/python -m venv "$scratch/venv"
python=$scratch/venv/bin/python
own=$("$python" -c "$packages")
"$python" -m pip install --quiet ipywidgets==7.7.1 ipython==7.34.0 ipykernel==6.17.1 numpy==2.1.3 setuptools==75.2.0

# All other packages are taken from the course's environment, because torch is too large to install again. Left out are
# the course itself and Brevitas with its dependencies, which Colab does not have either.
mkdir "$scratch/there"
ln -s "$course"/* "$scratch/there"
rm -f "$scratch"/there/{*qathelpers*,brevitas*,unfoldNd*,unfoldnd*,dependencies*,_dependencies*}
echo "$scratch/there" > "$own/course.pth"
mkdir -p "$own/google/colab"
touch "$own/google/colab/__init__.py"
echo "import google.colab" > "$own/kernels.pth"

git config --file "$scratch/gitconfig" safe.directory '*'  # the checkout may belong to another user
export GIT_CONFIG_GLOBAL=$scratch/gitconfig
export QAT_RESULTS_DIR=$scratch/drive/qat QAT_MAX_EPOCHS=1 QAT_MAX_IMAGES=500 MPLCONFIGDIR=$scratch
export PYDEVD_DISABLE_FILE_VALIDATION=1  # otherwise every kernel warns about frozen modules
"$python" tests/colab.py "$PWD" "$scratch"

unset QAT_MAX_EPOCHS QAT_MAX_IMAGES
"$python" -m pytest -q tests/test_widgets.py -p no:cacheprovider "$@"
