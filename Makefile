# Two commands for a newcomer: `make demo` and `make test`. Each makes .venv if it is missing.
PYTHON ?= python3
BIN := .venv/bin

RUN := $(BIN)/gan-lightning
RESTORATIONS := denoise inpaint deblur colorize super_resolve

# A run that is there already is moved aside, never overwritten.
define keep
@if [ -e $(1) ]; then old=$(1)-$$(date +%Y%m%d-%H%M%S); mv $(1) $$old; echo "kept the former $(1) as $$old"; fi
endef

.PHONY: help install demo demo-restore $(RESTORATIONS) test lint

help: ## list the commands
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/'

install: .venv/installed ## make .venv and install the package with its development tools

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: install ## train on the built-in faces for a few minutes; pictures and figures go to runs/demo
	$(call keep,runs/demo)
	$(RUN) fit --config configs/quickstart.yaml --name demo

runs/demo/checkpoints/best.ckpt:
	$(MAKE) demo

demo-restore: $(RESTORATIONS) ## restore held-out faces in five ways with the demo's generator; panels go to runs/restore-*

$(RESTORATIONS): install | runs/demo/checkpoints/best.ckpt
	$(call keep,runs/restore-$@)
	$(RUN) test --config configs/restore/$@.yaml --model.generator_ckpt runs/demo/checkpoints/best.ckpt --name restore-$@

test: install lint ## lint, types and every test
	$(BIN)/python -m pytest

lint: install ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
