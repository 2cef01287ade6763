# Two commands for a newcomer: `make demo` and `make test`. Each creates .venv if it is missing.
PYTHON ?= python3
BIN := .venv/bin

RUN := $(BIN)/gan-lightning
RESTORATIONS := denoise inpaint deblur colorize super_resolve

# Move an existing run aside instead of overwriting it.
define keep
@if [ -e $(1) ]; then old=$(1)-$$(date +%Y%m%d-%H%M%S); mv $(1) $$old; echo "moved the existing $(1) to $$old"; fi
endef

.PHONY: help install demo demo-restore $(RESTORATIONS) test lint

help: ## list the commands
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/'

install: .venv/installed ## create .venv and install the package with its development tools

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: install ## train on synthetic faces for a few minutes; samples, metrics and checkpoints go to runs/demo
	$(call keep,runs/demo)
	$(RUN) fit --config quickstart --name demo

runs/demo/checkpoints/best.ckpt:
	$(MAKE) demo

demo-restore: $(RESTORATIONS) ## restore held-out faces in five ways with the generator of the demo; panels go to runs/restore-*

$(RESTORATIONS): install | runs/demo/checkpoints/best.ckpt
	$(call keep,runs/restore-$@)
	$(RUN) test --config restore/$@ --model.generator_ckpt runs/demo/checkpoints/best.ckpt --name restore-$@

test: install lint ## run lint, type checks and all tests
	$(BIN)/python -m pytest

lint: install ## run ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
