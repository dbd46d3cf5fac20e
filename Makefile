# A newcomer needs `make study` and `make test`. Both first make .venv if it is missing or out of date.
PYTHON  ?= python3
CONFIG  ?= config.yaml
CORES   ?= all
PROFILE ?= default
VENV    := .venv
BIN     := $(VENV)/bin
# The stamp is written last, so an interrupted set-up is made again.
STAMP   := $(VENV)/.complete
# The stamp of the packages that compile CUDA kernels, which needs no GPU.
CUDA    := $(VENV)/.cuda
# The stamp of the packages that make the site of the documentation.
DOCS    := $(VENV)/.docs
# The packages that the benchmark compares with. They need Python 3.12 or older.
PEERS   := .venv-peers
# PyTorch, JAX, Keras and other libraries that tests compare with. On Linux a registry's usual PyTorch brings some 4 GB of CUDA.
OTHERS  := .venv-frameworks

.PHONY: study test test-frameworks bench bench-gpu docs cuda cublas check format lock clean help

study: $(STAMP)  ## run the study of CONFIG=config.yaml on all cores; also CORES=2, PROFILE=slurm, RECOMPUTE=1, VERBOSE=1, ALLOW_IMPORTS=1
	@$(BIN)/ntksim study $(CONFIG) --cores $(CORES) --profile $(PROFILE) $(if $(RECOMPUTE),--recompute) $(if $(VERBOSE),--verbose) $(if $(ALLOW_IMPORTS),--allow-imports)

test: $(STAMP) try-cuda $(DOCS)  ## run all tests (about 25 minutes on two cores)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-frameworks: $(OTHERS)/.complete  ## run the tests that compare with PyTorch, JAX, Keras, Polars and DuckDB, in an environment of their own
	$(OTHERS)/bin/python -m pytest tests/test_frameworks.py tests/engine/test_initialisers.py tests/study/test_results_elsewhere.py

bench: $(STAMP) $(PEERS)/.complete try-cuda  ## time the engine on this machine (about ten minutes); ONLY="kernels small" for some sections, LONG=1 for long ones too
	@$(BIN)/python benchmarks/run.py $(if $(ONLY),--only $(ONLY)) $(if $(LONG),--long)

docs: $(DOCS)  ## make the documentation's site in docs/_build/html; its warnings are errors
	@$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs docs/_build/html
	@echo "open docs/_build/html/index.html"

cuda: $(CUDA)  ## add to .venv the packages for NVIDIA GPUs

cublas: $(STAMP)  ## add CuPy to .venv, so that large products on GPUs use cuBLAS (2 GB)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r constraints-cublas.txt

bench-gpu: cuda  ## check and time the engine on this machine's GPU; without a GPU, ONLY=registers
	@$(BIN)/python benchmarks/gpu.py $(if $(ONLY),--only $(ONLY))

check: $(STAMP)  ## check lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/mypy
	$(BIN)/snakemake --lint

format: $(STAMP)  ## format the code in place
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow

lock:  ## resolve pyproject.toml to exact versions (needs uv)
	uv pip compile --universal --python-version 3.11 --extra study --extra slurm --extra dev --no-emit-index-url --no-annotate --no-header \
		--upgrade pyproject.toml -o constraints.txt
	uv pip compile --universal --python-version 3.11 --extra cuda --no-emit-index-url --no-annotate --no-header \
		--constraints constraints.txt --upgrade pyproject.toml -o constraints-cuda.txt
	uv pip compile --universal --python-version 3.11 --extra study --extra docs --no-emit-index-url --no-annotate --no-header \
		--constraints constraints.txt --upgrade pyproject.toml -o constraints-docs.txt
	uv pip compile --universal --python-version 3.11 --extra cublas --no-emit-index-url --no-annotate --no-header \
		--constraints constraints-cuda.txt --constraints constraints.txt --upgrade pyproject.toml -o constraints-cublas.txt
	uv pip compile --universal --python-version 3.11 --extra study --extra dev --extra frameworks --no-emit-index-url --no-annotate \
		--no-header --constraints constraints.txt --upgrade pyproject.toml | \
		grep -Ev '^(cuda|nvidia|triton)' > constraints-frameworks.txt # PyTorch names its own, and a build for CPUs needs none

clean:  ## remove what studies wrote to results/ (not .venv)
	rm -rf results/* .snakemake
	git checkout -- results 2>/dev/null || true

help:  ## list these targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "ntksim needs Python 3.11 or newer, but '$(PYTHON)' is $$($(PYTHON) --version 2>&1); try: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo "'$(PYTHON)' cannot make virtual environments; on Debian or Ubuntu: apt install python3-venv"; exit 1; }
	@echo "setting up $(VENV) (about a minute, once)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r constraints.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(CUDA): $(STAMP) constraints-cuda.txt
	@echo "adding numba-cuda to $(VENV) (half a minute, once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r constraints-cuda.txt
	@touch $@

$(DOCS): $(STAMP) constraints-docs.txt
	@echo "adding Sphinx to $(VENV) (half a minute, once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r constraints-docs.txt
	@touch $@

$(OTHERS)/.complete: pyproject.toml constraints-frameworks.txt
	@echo "setting up $(OTHERS) (some minutes, once)"
	@$(PYTHON) -m venv --clear $(OTHERS)
	@$(OTHERS)/bin/python -m pip install --quiet --disable-pip-version-check -r constraints-frameworks.txt
	@$(OTHERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# Without numba-cuda, as on macOS, tests of compiled CUDA kernels are skipped, and say so.
.PHONY: try-cuda
try-cuda: $(STAMP)
	@$(MAKE) --no-print-directory $(CUDA) || echo "numba-cuda cannot be installed here"

# If the peers cannot be installed, the rest of the benchmark runs, the table says why, and the next `make bench` tries again.
$(PEERS)/.complete: benchmarks/peers.txt
	@rm -rf $(PEERS) && mkdir $(PEERS)
	@for python in $(BIN)/python $(PYTHON) python3.12 python3.11; do \
		$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && found=$$python && break; \
	done; \
	if [ -z "$$found" ]; then echo "no Python 3.11 or 3.12" > $(PEERS)/skipped; \
	elif echo "setting up $(PEERS) (about a minute, once)" && $$found -m venv --clear $(PEERS) && \
		$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r benchmarks/peers.txt; then touch $@; \
	else echo "installing benchmarks/peers.txt failed" > $(PEERS)/skipped; fi
	@[ ! -e $(PEERS)/skipped ] || echo "peers skipped: $$(cat $(PEERS)/skipped)"
