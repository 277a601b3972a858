#!/usr/bin/env bash
# What Colab does, as closely as a script can: its versions of numpy, ipywidgets, IPython and ipykernel (August 2026), its
# kernels, which have imported google.colab, and no course until a notebook's setup cell installs it from git. Every
# notebook is executed there, then the widgets' tests are run. The package is that of the last commit.
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

# The rest is found in the course's environment, behind what was just installed: torch is too large to install again.
# Not the course, nor Brevitas and what comes with it, which Colab has not either.
mkdir "$scratch/there"
ln -s "$course"/* "$scratch/there"
rm -f "$scratch"/there/{*qathelpers*,brevitas*,unfoldNd*,unfoldnd*,dependencies*,_dependencies*}
echo "$scratch/there" > "$own/course.pth"
mkdir -p "$own/google/colab"
touch "$own/google/colab/__init__.py"
echo "import google.colab" > "$own/kernels.pth"

git config --file "$scratch/gitconfig" safe.directory '*'  # the checkout may be another user's
export GIT_CONFIG_GLOBAL=$scratch/gitconfig
export QAT_RESULTS_DIR=$scratch/drive/qat QAT_MAX_EPOCHS=1 QAT_MAX_IMAGES=500 MPLCONFIGDIR=$scratch
export PYDEVD_DISABLE_FILE_VALIDATION=1  # else every kernel warns of Python's frozen modules
"$python" tests/colab.py "$PWD" "$scratch"

unset QAT_MAX_EPOCHS QAT_MAX_IMAGES
"$python" -m pytest -q tests/test_widgets.py -p no:cacheprovider "$@"
