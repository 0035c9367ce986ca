# make demo: everything from nothing to a leaderboard and an exported model. make test, make check: for developers.
PYTHON ?= python3
BIN := .venv/bin
STUDY := demo

# What a person has set for pip and Python elsewhere must neither lead packages past .venv nor replace what is in it.
unexport PYTHONPATH PYTHONHOME PIP_TARGET PIP_PREFIX PIP_ROOT PIP_PYTHON PIP_NO_DEPS PIP_DRY_RUN
export PIP_USER := 0

.PHONY: demo compiled test test-all test-fast test-timm soak pictures gallery gallery-check check format clean

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	@touch $@

demo: .venv/ready
	$(BIN)/mnist-suite data fetch mnist
	$(BIN)/mnist-suite sweep mnist --trials 50 --study $(STUDY) --resume
	test -d results/$(STUDY)/model || $(BIN)/mnist-suite export $(STUDY) --to results/$(STUDY)/model
	$(BIN)/mnist-suite data sample mnist --index 0 --to results/$(STUDY)/digit.png
	$(BIN)/mnist-suite predict results/$(STUDY)/model results/$(STUDY)/digit.png

compiled: .venv/ready  # once, where PYTHONDONTWRITEBYTECODE would let each of the tests' many processes do it again
	@$(BIN)/python -m compileall -q mnist_suite suite tui experiments

# One more than two cores have work for: many tests wait for processes, timeouts and signals.
JOBS ?= 3
test: compiled gallery-check  # without the few that tests/heavy.txt names
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not heavy"

test-all: compiled
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

test-fast: compiled  # without what kills processes, starts clusters, terminals or browsers, or takes seconds
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not heavy" --ignore tests/faults

SHARDS ?= 2
test-timm: .venv/ready  # all architectures of timm in SHARDS processes; hours; goes on where it was cut
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.timm_contract --processes $(SHARDS)

SOAK ?= 500
soak: .venv/ready  # the fault tests with so many kills, as many examples for each fuzz test, all that others draw from
	MNIST_SUITE_SOAK=$(SOAK) $(BIN)/python -m pytest -s --timeout 0 tests/faults tests/test_fuzz.py \
		tests/cli/test_paths.py tests/tui/test_screens.py tests/tui/test_fuzz.py tests/data/test_glyphs.py

RESULTS ?= results
PICTURES := $(BIN)/python -m tui.testing.pictures $(RESULTS) docs/pictures
pictures: .venv/ready  # of docs/dashboard.md and docs/explain.md, and the table of keys; of what make demo leaves in RESULTS
	$(PICTURES) --screens board --themes suite
	$(PICTURES) --screens plots compare mistakes --sizes 120x40 --themes suite-light
	$(BIN)/python -m tui.testing.docs docs/dashboard.md
	$(BIN)/mnist-suite explain $(STUDY) --results $(RESULTS) --to $(RESULTS)/explained >/dev/null
	cp $(RESULTS)/explained/0001-validation-*.png docs/pictures/explain-digit.png
	$(PICTURES) --screens explained --sizes 120x40 --themes suite
	$(BIN)/mnist-suite finetune --backbone timm:tf_efficientnet_lite0 --strategy head --dataset fashion-mnist \
		--limit 2000 --study clothes --results $(RESULTS)
	$(BIN)/mnist-suite data sample fashion-mnist --index 5 --to $(RESULTS)/garment.png
	$(BIN)/mnist-suite explain clothes $(RESULTS)/garment.png --results $(RESULTS) --to $(RESULTS)/explained >/dev/null
	cp $(RESULTS)/explained/0001-garment.png docs/pictures/explain-clothes.png

QUOTING := README.md docs/raise-accuracy.md docs/lower-cost.md docs/transfer.md docs/compression.md
GALLERY := $(BIN)/mnist-suite gallery --to results $(addprefix --quote ,$(QUOTING))
gallery: .venv/ready  # pages, pictures and quotes, made anew from the tables in results/
	$(GALLERY)

gallery-check: .venv/ready  # fails on any figure in these that does not come from its table
	$(GALLERY) --check

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
