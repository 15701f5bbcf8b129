# What is done often. Everything but `bench` runs on any machine; `fast` needs no torch.
.PHONY: fast test slow fuzz fuzz-one lint bench build

FAST = -m "not slow and not oracle" --ignore=tests/dryrun --ignore=tests/measure --ignore=tests/oracles

fast:  ## Formulas, screens, recipes, input and reports: a minute.
	python -m pytest $(FAST)

test:  ## The default: every module, the real libraries included; see CONTRIBUTING.md for how long.
	python -m pytest -n auto --dist loadfile

slow:  ## What the default leaves out.
	python -m pytest -m slow

FUZZ = PYTHONPATH=.:tests:tests/support python -m fuzz

fuzz:  ## An hour of wrong inputs; SEED=1 MINUTES=5 for others, or fewer.
	$(FUZZ) --minutes $(or $(MINUTES),60) $(if $(SEED),--seed $(SEED))

fuzz-one:  ## One of them again, as `fuzz` prints it: SEED=1 KIND=line NUMBER=77
	$(FUZZ) --seed $(SEED) --kind $(KIND) --only $(NUMBER)

lint:
	ruff check .
	mypy

bench:  ## Speed of the tool itself; on a quiet machine.
	python tests/benchmarks/startup.py
	python tests/benchmarks/estimates_per_second.py
	python tests/benchmarks/choose_all.py
	python tests/benchmarks/records_10000.py

build:  ## A wheel and an sdist in dist/, checked as PyPI will.
	rm -rf dist
	python -m build
	twine check --strict dist/*
