# Every target makes its own virtual environment first and brings it up to date when the requirements change.
#
#   make demo                      segment the sample scenes with the embedded checkpoint
#   make demo IMAGE=cat.jpg MODEL=openai/clip-vit-base-patch16 CLASSES="cat; sofa; wall"
#   make test                      all tests        (one file: make test TESTS=tests/cli/test_segment.py)
#   make test-newest               registration and Hub export on the newest Transformers that setup.cfg allows
#   make fuzz                      thousands of odd inputs and a table of what came of them, about ten minutes
#   make benchmark                 speed and memory of this machine, about a quarter of an hour; keep it idle
#   make benchmark-presets         quality against seconds an image on the drawn scenes
#   make ablations                 tables of docs/ablations/ on held-out scenes, about half an hour on two cores
#   make docs / make docs-serve     the documentation site, into build/site / shown while it is written (Python 3.11)
#   make style / make quality      put the code in order / check it

PYTHON      ?= python3
VENV        ?= .venv
CONSTRAINTS ?= constraints.txt
# An extra package index for builds of torch other than the default one, such as CPU-only builds.
TORCH_INDEX ?=
TESTS       ?= tests
JOBS        ?= auto
IMAGE       ?=
MODEL       ?=
CLASSES     ?=
OUT         ?= itaclip_demo
# Cases of each property that `make fuzz` tries, and the seed they are drawn from.
FUZZ_CASES  ?= 400
FUZZ_SEED   ?= 0
# What `make benchmark` measures; the options are those that all of its scripts know, such as "--device cuda".
BENCHMARK_OUT     ?= itaclip_benchmarks
BENCHMARK_MODEL   ?= vit-b16
BENCHMARK_OPTIONS ?=
SCENES            ?= 16
# Such as "--scenes 48 --stride 28 --processes 2".
ABLATION_OPTIONS  ?=

BIN       := $(VENV)/bin
INSTALLED := $(VENV)/installed-from-$(notdir $(CONSTRAINTS))
SOURCES   := itaclip_hf demo_world benchmarks tests
PRESENT    = $(wildcard $(SOURCES))

.PHONY: demo readme-picture test test-fast test-newest fuzz benchmark benchmark-presets ablations docs docs-serve docs-pictures style quality install clean

demo: $(INSTALLED)
	$(BIN)/itaclip demo-scenes --out "$(OUT)" $(if $(IMAGE),--image "$(IMAGE)") $(if $(MODEL),--model "$(MODEL)") \
		$(if $(CLASSES),--classes "$(CLASSES)")

test: $(INSTALLED)
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile $(TESTS)

test-fast: $(INSTALLED)
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile -m "not slow" $(TESTS)

# The tested versions, with Transformers alone brought up to date.
test-newest:
	$(MAKE) install VENV=.venv-newest
	.venv-newest/bin/python -m pip install --quiet --upgrade transformers --editable .
	$(MAKE) test VENV=.venv-newest TESTS="tests/modeling/test_auto_registration.py tests/modeling/test_hub_export.py"

fuzz: $(INSTALLED)
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 FUZZ_CASES=$(FUZZ_CASES) $(BIN)/python -m pytest --quiet --tb=no \
		--numprocesses $(JOBS) --hypothesis-profile=fuzz --hypothesis-seed=$(FUZZ_SEED) tests/properties

benchmark: $(INSTALLED)
	$(BIN)/python -m benchmarks.roofline --model $(BENCHMARK_MODEL) $(BENCHMARK_OPTIONS) --json $(BENCHMARK_OUT)/roofline.json
	$(BIN)/python -m benchmarks.stages --model $(BENCHMARK_MODEL) $(BENCHMARK_OPTIONS) --json $(BENCHMARK_OUT)/stages.json
	$(BIN)/python -m benchmarks.ratios --model $(BENCHMARK_MODEL) $(BENCHMARK_OPTIONS) --json $(BENCHMARK_OUT)/ratios.json
	$(BIN)/python -m benchmarks.memory --model $(BENCHMARK_MODEL) $(BENCHMARK_OPTIONS) --json $(BENCHMARK_OUT)/memory.json

benchmark-presets: $(INSTALLED)
	$(BIN)/python -m benchmarks.presets --scenes $(SCENES) --out $(BENCHMARK_OUT)/presets

ablations: $(INSTALLED)
	$(BIN)/python docs/make_ablations.py $(ABLATION_OPTIONS)

# Warnings, links to nowhere among them, are errors.
docs: $(INSTALLED)
	$(BIN)/zensical build --clean --strict

docs-serve: $(INSTALLED)
	$(BIN)/zensical serve

docs-pictures: $(INSTALLED)
	$(BIN)/python docs/images/make_method_pictures.py
	$(BIN)/python docs/images/make_howto_pictures.py
	$(BIN)/python docs/make_settings_table.py

style: $(INSTALLED)
	$(BIN)/ruff check --fix $(PRESENT)
	$(BIN)/ruff format $(PRESENT)

quality: $(INSTALLED)
	$(BIN)/ruff check $(PRESENT)
	$(BIN)/ruff format --check $(PRESENT)
	$(BIN)/mypy

readme-picture: $(INSTALLED)
	$(BIN)/itaclip demo-scenes --out "$(OUT)"
	$(BIN)/python docs/images/make_demo_picture.py "$(OUT)/scenes.png"

install: $(INSTALLED)

$(INSTALLED): setup.cfg pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "Expected Python 3.10 or newer as $(PYTHON). Name another: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) \
		$(if $(TORCH_INDEX),--extra-index-url "$(TORCH_INDEX)") --editable ".[dev]"
	@touch $@

clean:
	rm -rf .venv .venv-lowest .venv-newest build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .cache itaclip_demo itaclip_evaluation itaclip_results itaclip_benchmarks itaclip_ablation itaclip_tuning
	find . -name __pycache__ -type d -not -path "./.git/*" -prune -exec rm -rf {} +
