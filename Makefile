.DEFAULT_GOAL := help
.PHONY: help setup demo lab lab-down test bench bench-snapshot fuzz chaos vm docs install uninstall lint clean

PYTHON := .venv/bin/python

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what is missing: Debian packages, kernel headers, .venv
	@deploy/setup.sh

demo: setup ## build the lab, balance and block real traffic, show what happened, clean up
	@$(PYTHON) netns-lab/demo.py

lab: setup ## start the lab with the daemon in it and leave it running
	@$(PYTHON) netns-lab/lab.py up

lab-down: ## remove the lab
	@$(PYTHON) netns-lab/lab.py down

test: lint ## set up, lint, check types, run every test, five files at once
	@$(PYTHON) -m pytest -n 5 --dist loadfile --no-loadscope-reorder

bench: ## measure beside xdp-filter and nftables, in under 3 minutes; FULL=1 for the long run
	@deploy/setup.sh peers
	@$(PYTHON) netns-lab/bench.py --effort $(if $(FULL),full,quick)

bench-snapshot: setup ## put the figures and plots of the last bench into the README
	@$(PYTHON) netns-lab/bench.py --snapshot

fuzz: setup ## random frames through the program and the reference, for DURATION seconds
	@$(PYTHON) tests/fuzz.py $(or $(DURATION),60) $(SEED)

docs: setup ## generate docs/reference from the code
	@$(PYTHON) docs/generate.py

chaos: setup ## faults under load for DURATION seconds, drawn from SEED: nothing may fail
	@$(PYTHON) netns-lab/chaos.py --duration $(or $(DURATION),600) --seed $(or $(SEED),1)

vm: ## test bond, VLAN, unit and install on Debian's kernel in a virtual machine (CHAPTERS)
	@deploy/setup.sh machine
	@$(PYTHON) netns-lab/vm.py $(CHAPTERS)

install: setup ## install Sluice on this machine, with its systemd unit (DESTDIR, PREFIX)
	@deploy/install.sh install

uninstall: ## remove it; state and configuration stay, unless PURGE=1
	@deploy/install.sh uninstall

lint: setup ## ruff and mypy
	@.venv/bin/ruff check && .venv/bin/ruff format --check && .venv/bin/mypy lb api

clean: ## remove the venv, caches and build output
	@rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info $(shell find lb api tests netns-lab deploy -name __pycache__ 2>/dev/null)
