#!/usr/bin/env bash
# Execute every notebook in an environment like Colab's, then run the tests of the widgets. The environment has Colab's
# versions of numpy, ipywidgets, IPython and ipykernel (August 2026). As on Colab, every kernel has imported
# google.colab, and the course is missing until a notebook's setup cell installs it: from git (the tag of the last
# commit) for one half of the notebooks, and from a wheel beside the notebook for the other half. The two halves run at
# the same time, each in an environment of its own.
set -euo pipefail
cd "$(dirname "$0")/.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
unset PYTHONPATH
packages='import sysconfig; print(sysconfig.get_path("purelib"))'
course=$(.venv/bin/python -c "$packages")

# All other packages are taken from the course's environment, because torch is too large to install again. Left out are
# the course itself and Brevitas with its dependencies, which Colab does not have either.
mkdir "$scratch/there"
ln -s "$course"/* "$scratch/there"
rm -f "$scratch"/there/{*qathelpers*,brevitas*,unfoldNd*,unfoldnd*,dependencies*,_dependencies*}

make_colab() {  # in the folder $1
  .venv/bin/python -m venv "$1"
  "$1/bin/python" -m pip install --quiet ipywidgets==7.7.1 ipython==7.34.0 ipykernel==6.17.1 numpy==2.1.3 setuptools==75.2.0
  own=$("$1/bin/python" -c "$packages")
  echo "$scratch/there" > "$own/course.pth"
  mkdir -p "$own/google/colab"
  touch "$own/google/colab/__init__.py"
  echo "import google.colab" > "$own/kernels.pth"
}

git config --file "$scratch/gitconfig" safe.directory '*'  # the checkout may belong to another user
export GIT_CONFIG_GLOBAL=$scratch/gitconfig
git clone --quiet . "$scratch/course.git" --bare
git -C "$scratch/course.git" archive HEAD --prefix=source/ | tar -x -C "$scratch"
.venv/bin/python -m pip wheel --quiet --no-deps --wheel-dir "$scratch/dist" "$scratch/source"
wheel=$(echo "$scratch"/dist/qathelpers-*.whl)
version=$(basename "$wheel" | cut -d - -f 2)
git -C "$scratch/course.git" tag --force "v$version" HEAD > /dev/null

export QAT_MAX_EPOCHS=1 QAT_MAX_IMAGES=300 MPLCONFIGDIR=$scratch OMP_NUM_THREADS=1
export PYDEVD_DISABLE_FILE_VALIDATION=1  # otherwise every kernel warns about frozen modules
run_half() {  # with the way of installing $1 and what to install from $2
  make_colab "$scratch/$1"
  QAT_RESULTS_DIR=$scratch/$1/drive/qat "$scratch/$1/bin/python" tests/colab.py "$1" "$2" "$scratch/source/notebooks" \
    "$scratch/$1"
}
run_half git "file://$scratch/course.git" > "$scratch/git.log" 2>&1 &
git_half=$!
run_half wheel "$wheel"
wait $git_half || { cat "$scratch/git.log"; exit 1; }
cat "$scratch/git.log"

unset QAT_MAX_EPOCHS QAT_MAX_IMAGES
"$scratch/wheel/bin/python" -m pytest -q tests/test_{training_panel,explorer,guesser,comparison,bit_budget}.py \
  -m "not slow" --numprocesses=auto --dist=loadfile -p no:cacheprovider "$@"
