# Two commands do all the set-up on a fresh machine with Python and make: `make quickstart` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
DATA := data/digits
RUN := runs/digits
SAMPLES := 1000
GAP_IMAGES := 250
FIT_OPTIONS :=

.PHONY: help install quickstart quickstart-gbc lint docs test test-fast test-set test-gpu test-large cluster container check \
	clean benchmark-digits benchmark-cifar10-16 benchmark-gbc benchmark-gpu
.DEFAULT_GOAL := help

help:
	@echo "make quickstart  set up, then digits -> shards -> training -> samples -> distances (about 4 minutes on 2 cores, after set-up)"
	@echo "make quickstart-gbc  set up, then a system of agents -> a planted fault -> blame -> repair (about 1 minute on 2 cores, after set-up); MODEL=FOLDER: of your own language model"
	@echo "make test        set up, then all tests"
	@echo "make test-fast   set up, then the tests that take less than a quarter of a second each"
	@echo "make test-set    set up another set of versions, then all tests on it: SET=lowest, torch-2.11 or python-3.13"
	@echo "make test-gpu    set up, then the tests that need a GPU"
	@echo "make lint        set up, then format, lint, types and import layers"
	@echo "make docs        set up, then these pages as a site, with the API reference: build/site/index.html"
	@echo "make check       lint, docs and test"
	@echo "make cluster     set up, then the tests on a real SLURM and on several hosts (Debian, root; up to an hour)"
	@echo "make container   set up, then the image, built and tried (Debian, root; up to 20 minutes)"
	@echo "make benchmark-digits, benchmark-cifar10-16, benchmark-gbc, benchmark-gpu   the figures of docs/benchmarks.md"
	@echo "make clean       remove the environments"

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

install: $(INSTALLED)

quickstart: install
	$(BIN)/framework shards digits $(DATA)/images
	$(BIN)/framework shards images $(DATA)/images/train $(DATA)/train --overwrite
	$(BIN)/framework shards images $(DATA)/images/test $(DATA)/test --overwrite
	$(BIN)/framework fit --config recipes/evaluation/digits_classifier.yaml $(FIT_OPTIONS)
	$(BIN)/framework fit --config recipes/pra/digits.yaml $(FIT_OPTIONS)
	$(BIN)/framework sample $(RUN) $(RUN)/samples.npz --num $(SAMPLES) --sampler.steps 25 --sampler.guidance 1.5
	$(BIN)/framework evaluate $(RUN)/samples.npz $(DATA)/test --training $(DATA)/train --svm_accuracy true \
		--features ClassifierFeatures --features.checkpoint runs/digits-classifier \
		--checkpoint $(RUN) --gap_images $(GAP_IMAGES) --out $(RUN)/metrics.json
	@echo
	@echo "Look at:  $(RUN)/samples.png           samples, a class in each column"
	@echo "          $(RUN)/curves.png            losses and speed"
	@echo "          $(RUN)/metrics.json          distances, copies, class accuracy, rollout gap"
	@echo "          $(RUN)/samples/              the same seeds through training"
	@echo "          $(RUN)/recipe.yaml           every setting of the run"
	@echo "Try next: $(BIN)/framework fit --config recipes/pra/digits.yaml --run.dir runs/plain --model.architecture.variant teacher_forced"
	@echo "          $(BIN)/framework sample $(RUN) sevens.npz --classes '[7]' --num 100"
	@echo "          docs/recipes.md: your own images, CIFAR-10, ImageNet"

# A system of agents: healthy, with a fault, blamed, and repaired by choosing among prompts. Of the micro world, or, with
# MODEL=FOLDER, of a language model in a folder.
AGENTS := runs/agents
ifdef MODEL
SYSTEM := hotel
FAULT := 7
STEPS := 12
# By credit it would go wrong: this model was not trained so that gradients tell what other words would do.
BY := --by diagnosis
EXAMPLE := realworld $(AGENTS) --model $(MODEL) --system $(SYSTEM) --fault $(FAULT)
JUDGED := --models $(AGENTS)/models.yaml --loss slot_loss
else
FAULT := swap
TASKS := 16
WRONG := 4
STEPS := 40
EXAMPLE := microworld $(AGENTS) --fault $(FAULT) --num_tasks $(TASKS) --num_wrong $(WRONG)
JUDGED := --models $(AGENTS)/models.yaml --loss framework.gbc.environments.microworld.tasks:answer_loss
endif

quickstart-gbc: install
	rm -rf $(AGENTS)
	$(BIN)/framework agents $(EXAMPLE)
	$(BIN)/framework agents check $(AGENTS)/graph.yaml
	@echo
	@echo "== the healthy system"
	$(BIN)/framework agents run $(AGENTS)/graph.yaml $(AGENTS)/held_out.jsonl $(JUDGED) --out $(AGENTS)/healthy.jsonl
	@echo
	@echo "== with the fault"
	$(BIN)/framework agents run $(AGENTS)/faulty.yaml $(AGENTS)/held_out.jsonl $(JUDGED) --out $(AGENTS)/faulty.jsonl
	@echo
	@echo "== who is to blame"
	$(BIN)/framework attribute --trace $(AGENTS)/faulty.jsonl --graph $(AGENTS)/faulty.yaml $(JUDGED) --out $(AGENTS)/blame --show 1
	@echo
	@echo "== repair: other prompts are tried, blamed agents first"
	$(BIN)/framework optimize $(AGENTS)/faulty.yaml $(AGENTS)/tasks.jsonl --held_out $(AGENTS)/held_out.jsonl $(JUDGED) \
		--candidates $(AGENTS)/candidates.yaml --options.steps $(STEPS) $(BY) --out $(AGENTS)/repair
	@echo
	@echo "== after the repair"
	$(BIN)/framework agents run $(AGENTS)/repair/graph.yaml $(AGENTS)/held_out.jsonl $(JUDGED) --out $(AGENTS)/repaired.jsonl
	@echo
	@echo "Look at:  $(AGENTS)/blame/blame.html      who made the errors: graph, agents, every token coloured"
	@echo "          $(AGENTS)/blame/blame.png       the graph, edges as wide as the blame that flows over them"
	@echo "          $(AGENTS)/faulty.yaml           the system with the fault; $(AGENTS)/graph.yaml without"
	@echo "          $(AGENTS)/faulty.jsonl          its runs, a trace each: who read and said what"
	@echo "          $(AGENTS)/repair/graph.yaml     the repaired system"
ifdef MODEL
	@echo "Try next: make quickstart-gbc MODEL=$(MODEL) SYSTEM=helpdesk FAULT=0    another system and fault; a wrong number lists them"
else
	@echo "Try next: make quickstart-gbc FAULT=route    another fault: drop, swap, format, route"
	@echo "          make quickstart-gbc MODEL=FOLDER   the same with your own language model"
endif
	@echo "          docs/agents.md: your own agents, models, losses and optimizers"

# Shape annotations are checked at run time; torch.compile cannot trace such checks: what compiles runs in processes that
# have none. TEST_PROCESSES run whole files each, those that take longest first.
SHAPES := --jaxtyping-packages=framework.core,framework.pra,framework.evaluation,framework.language_model,framework.data,framework.training,framework.gbc,beartype.beartype
# Bytecode is kept whatever the machine's default is: without it each process compiles the framework and its tests anew.
test test-fast: export PYTHONDONTWRITEBYTECODE :=
TEST_PROCESSES := 3
PARALLEL := --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder
ELSEWHERE := not gpu and not large and not cluster and not container

test: install
	$(BIN)/python -m pytest $(SHAPES) $(PARALLEL) -m "$(ELSEWHERE)"

# The inner loop: without the tests that start processes or train, and without the checks of shapes.
test-fast: TEST_PROCESSES := 2
test-fast: install
	$(BIN)/python -m pytest $(PARALLEL) -m "$(ELSEWHERE) and not slow"

# Other versions than constraints.txt has, in an environment of their own: CONTRIBUTING.md says what came of each. The
# lowest jaxtyping cannot check shapes: its plugin for pytest comes after conftest.py.
SET := lowest
test-set:
	test -f .sets/$(SET)/made || { tools/version_set.sh $(SET) .sets/$(SET) && touch .sets/$(SET)/made; }
	.sets/$(SET)/bin/python -m pytest $(if $(filter lowest,$(SET)),,$(SHAPES)) $(PARALLEL) -m "$(ELSEWHERE)"

# Shapes unchecked: these compile in this process.
test-gpu: install
	$(BIN)/python -m pytest -m gpu

# PRA-L itself under FSDP2 and ZeRO-3 on two processes (21 GiB of memory), two pretended GPUs: some minutes.
test-large: install
	$(BIN)/python -m pytest -m large -s

# Hosts are made of namespaces, SLURM is Debian's. REPEATS: how often each interruption is tried.
REPEATS := 1
APT := DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends

cluster: install
	apt-get update --quiet && $(APT) slurm-wlm munge iproute2 procps
	$(BIN)/python -m pytest -m cluster --repeats $(REPEATS)

container: install
	apt-get update --quiet && $(APT) buildah debootstrap
	$(BIN)/python -m pytest -m container

lint: install
	$(BIN)/ruff format --check framework launch tests tools
	$(BIN)/ruff check framework launch tests tools
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python tools/measure_structure.py --check

# Fails on a broken link, a page that is missing from the navigation, and a docstring that names no parameter of its function.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "build/site/index.html"

check: lint docs test

# The figures of docs/benchmarks.md. CIFAR-10 comes from the zip at CIFAR10 (train/CLASS/*.jpg, test/CLASS/*.jpg).
CIFAR10 := cifar10.zip
CLASSIFIER := --features ClassifierFeatures --features.checkpoint

data/cifar10/%/manifest.json: | install
	$(BIN)/framework shards images $(CIFAR10) $(@D) --folder $*

benchmark-digits: install
	$(BIN)/framework shards digits $(DATA)/images
	$(BIN)/framework shards images $(DATA)/images/train $(DATA)/train --overwrite
	$(BIN)/framework shards images $(DATA)/images/test $(DATA)/test --overwrite
	$(BIN)/framework fit --config recipes/evaluation/digits_classifier.yaml
	$(BIN)/framework compare recipes/pra/digits.yaml runs/compare-digits $(CLASSIFIER) runs/digits-classifier \
		--num 1000 --steps 25 --svm_accuracy

benchmark-cifar10-16: data/cifar10/train/manifest.json data/cifar10/test/manifest.json
	$(BIN)/framework fit --config recipes/evaluation/cifar10_16_classifier.yaml
	$(BIN)/framework compare recipes/pra/cifar10_16.yaml runs/compare-cifar10-16 $(CLASSIFIER) \
		runs/cifar10-16-classifier --num 2000 --steps 25

# What a token's size does to each row; hours on a CPU. Started several times, the parts are shared out.
benchmark-tokens: data/cifar10/train/manifest.json data/cifar10/test/manifest.json
	$(BIN)/framework compare recipes/pra/cifar10_tokens.yaml runs/tokens --sizes '[8, 16, 32]' --seeds '[0, 1]' \
		--training_steps '[1000, 2000, 4000]' --classifier recipes/evaluation/cifar10_32_classifier.yaml \
		--guidance '[1]' --num 1000 --steps 25

# One pass against the graph kept through generation, and what attribution adds to generation, on the CPU: about 40 minutes.
benchmark-gbc: install
	$(BIN)/framework bench attribution --device cpu --out runs/bench-gbc.json
	$(BIN)/framework bench episodes --device cpu --batch_size 4 --out runs/bench-gbc-small.json
	$(BIN)/framework bench episodes --device cpu --batch_size 4 --new '[64]' --scalars '[finegrained]' --rounds 1
	$(BIN)/framework bench episodes --device cpu --batch_size 4 --shape qwen3-0.6b --dtype bfloat16 --rounds 3 \
		--new '[64, 256, 512]' --out runs/bench-gbc-0.6b.json

# One GPU in nine minutes, CIFAR-10 from the zip at CIFAR10 where it is there; MINUTES=30 gives every part more.
MINUTES := 9
benchmark-gpu: install
	GPU_BENCH_CIFAR10=$(CIFAR10) $(BIN)/python -m framework.bench.gpu --minutes $(MINUTES) --out runs/bench-gpu

clean:
	rm -rf .venv .sets
