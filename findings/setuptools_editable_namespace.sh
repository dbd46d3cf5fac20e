#!/usr/bin/env bash
# setuptools 84.2.1, pip 26.2 (Python 3.11): after `pip install -e .` of a flat layout, Python that is started in the folder above
# the project does not import the package if the project's folder has its name.
#
# The editable install puts a finder behind Python's own. Python's own finds the folder `thing` in the working directory first, and
# takes it for a namespace package: `import thing` succeeds, and nothing is in it. Saying `package-dir = {"" = "."}`, which is the
# default, makes setuptools write a plain path file instead, and then the package inside the folder wins.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pip==26.2 setuptools==84.2.1
mkdir -p "$work/thing/thing"; echo "value = 42" > "$work/thing/thing/__init__.py"
project() {
    printf '[build-system]\nrequires = ["setuptools==84.2.1"]\nbuild-backend = "setuptools.build_meta"\n'
    printf '[project]\nname = "thing"\nversion = "1"\n[tool.setuptools]\npackages = ["thing"]\n%s\n' "$1"
}
imported() {
    project "$1" > "$work/thing/pyproject.toml"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-build-isolation -e "$work/thing"
    (cd "$work" && venv/bin/python -c "import thing; print(getattr(thing, 'value', 'a namespace without value'))")
}
plain=$(imported ""); stated=$(imported 'package-dir = {"" = "."}')
echo "default: $plain"; echo "default stated: $stated"
[ "$plain" = "a namespace without value" ] && [ "$stated" = 42 ]
