#!/usr/bin/env bash
# The widgets' tests with the versions of ipywidgets, IPython and ipykernel that Colab has (August 2026), in an environment
# of their own; everything else is the course's.
set -euo pipefail
cd "$(dirname "$0")/.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
packages='import sysconfig; print(sysconfig.get_path("purelib"))'
course=$(.venv/bin/python -c "$packages")
.venv/bin/python -m venv "$scratch/venv"
python=$scratch/venv/bin/python
"$python" -m pip install --quiet ipywidgets==7.7.1 ipython==7.34.0 ipykernel==6.17.1
echo "$course" > "$("$python" -c "$packages")/course.pth"  # found behind what was just installed
"$python" -c 'import IPython, ipykernel, ipywidgets; print(ipywidgets.__version__, IPython.__version__, ipykernel.__version__)'
"$python" -m pytest -q tests/test_widgets.py -p no:cacheprovider "$@"
