#!/usr/bin/env bash
# platformdirs 4.14.7, pytest 9.2.0 (Python 3.11): a library that says where caches and settings go is a pytest plugin too.
#
# Whoever installs it, as a dependency of a dependency mostly, has the fixture `platformdirs_isolated` in every test run, and a line
# "plugins: platformdirs-..." at its top, though no test asks for it. `-p no:platformdirs` leaves it out.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pytest==9.2.0 platformdirs==4.14.7
echo 'def test_where(platformdirs_isolated): import platformdirs; assert str(platformdirs_isolated) in platformdirs.user_cache_dir()' \
    > "$work/test_where.py"
cd "$work"
plain=$(venv/bin/python -m pytest -q test_where.py 2>&1 | tail -1) || true
without=$(venv/bin/python -m pytest -q -p no:platformdirs test_where.py 2>&1 | grep -o "fixture 'platformdirs_isolated' not found") || true
echo "as installed: $plain"; echo "without the plugin: $without"
[[ "$plain" == "1 passed"* ]] && [ "$without" = "fixture 'platformdirs_isolated' not found" ]
