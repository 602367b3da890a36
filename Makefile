# make demo   the whole route on this machine, ending with a picture
# make test   everything that is checked: style, types, layers, tests with real peers
# make faults every fault at each step of a series
# make soak   ten minutes of a busy day
# make fuzz   200,000 hostile inputs to a running receiver; GPNET_FUZZ_INPUTS and GPNET_FUZZ_SEED change that
# make bench  speed and size as ratios against other programs, in one run

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check install --quiet --constraint requirements.lock

.PHONY: demo test faults fuzz soak bench lint peers clean
.DEFAULT_GOAL := demo

demo: $(VENV)/.installed
	$(BIN)/gpnet-node demo --out demo-output

test: $(VENV)/.installed-test peers lint
	$(BIN)/pytest -m "not speed and not faults and not fuzz and not soak" --numprocesses=auto --dist=loadfile

faults: $(VENV)/.installed-test peers
	$(BIN)/pytest -m faults --numprocesses=auto tests/faults

soak: $(VENV)/.installed-test peers
	$(BIN)/pytest -m soak tests/soak

fuzz: $(VENV)/.installed-test
	$(BIN)/pytest -m fuzz tests/fuzz

bench: $(VENV)/.installed-test peers
	$(BIN)/pytest -m speed -s --timeout=900 tests/benchmarks

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

peers:
	deploy/install-test-peers

$(VENV)/.created:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.installed: $(VENV)/.created pyproject.toml requirements.lock
	$(PIP) --editable .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) --editable '.[test,train]'
	touch $@

clean:
	rm -rf $(VENV) demo-output build *.egg-info
