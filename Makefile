# `make` lists the targets. Each works first, alone and again; what it needs and does not find it installs, or says how.

CARGO ?= cargo
DATA := notebooks-data
# Without a space in it this is right for every setting but cargo's own `build.target-dir`.
TARGET := $(or $(CARGO_TARGET_DIR),target)
DEMO := $(TARGET)/demo
# One command for everything that runs the release program, so that nothing is built twice.
BUILD := $(CARGO) build --release --bin condlora --example refresh_results
STUDY = $(CONDLORA) analyze $(DATA)/adapters --base $(BASE) \
	--init $(DATA)/init --figures-dir $(DEMO)/figures -o $(DEMO)/results --overwrite
CONDLORA = $(TARGET)/release/condlora
BASE := $(DATA)/base/all-MiniLM-L6-v2-qv
# What the gallery has beside the study's own figures.
define GALLERY
$(CONDLORA) figures $(DEMO)/results --paper --figures-dir $(DEMO)/figures
$(CONDLORA) compare $(DATA)/adapters/trec-seed0 $(DATA)/condlora/trec-seed0 --base $(BASE) -q -o $(DEMO)/compared --overwrite --figures none
$(CONDLORA) figures $(DEMO)/compared --figures-dir $(DEMO)/figures/compared
$(CONDLORA) fit $(DATA)/adapters/trec-seed0 --base $(BASE) -q --held-out -o $(DEMO)/fitted --overwrite --figures none
$(CONDLORA) figures $(DEMO)/fitted --figures-dir $(DEMO)/figures/fitted
endef
REFRESH = $(TARGET)/release/examples/refresh_results $(DEMO)/results $(DEMO)/figures $(DATA)/results figures
# The default features are all but openblas-static, which takes OpenBLAS from GitHub and compiles it: a matter of its own.
LEAST := --no-default-features --features openblas-system

# The database of advisories is on GitHub; where that cannot be reached, the other three are left.
CHECKS ?= advisories licenses bans sources

.DEFAULT_GOAL := help
.PHONY: help demo results test interop bench compare fmt lint doc deny minimal openblas programs

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: openblas ## Build, analyse the adapters in notebooks-data/, refresh its results/ and figures/
	$(BUILD)
	$(STUDY)
	$(GALLERY)
	$(REFRESH)

results: openblas ## The same, and replace results and figures even where only rounding differs
	$(BUILD)
	$(STUDY)
	$(GALLERY)
	$(REFRESH) --always

test: openblas programs ## Run all Rust tests
	$(CARGO) test

interop: openblas ## Check against PEFT, NumPy and pandas (Python; the first run installs some 500 MB)
	$(BUILD)
	python=$$(tests/interop/setup.sh) && CONDLORA=$(abspath $(TARGET))/release/condlora PYTHONDONTWRITEBYTECODE=1 \
		"$$python" -m pytest -q -p no:cacheprovider tests/interop

bench: openblas ## Time the kernels and the study
	$(CARGO) bench --bench '*'

compare: openblas ## Time condlora against NumPy and PyTorch programs (Python; the first run installs several GB)
	$(BUILD)
	CONDLORA=$(abspath $(TARGET))/release/condlora benches/compare/run.sh

fmt: ## Format the Rust code
	$(CARGO) fmt

lint: openblas ## Formatting, and clippy with warnings denied
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	$(CARGO) clippy --lib $(LEAST) -- -D warnings

doc: openblas ## Build the documentation, warnings denied
	RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --no-deps

deny: ## Check licences, sources, duplicates and advisories of all dependencies (CHECKS="licenses bans sources": offline)
	@$(CARGO) deny --version >/dev/null 2>&1 || { echo "needs cargo-deny: $(CARGO) install --locked cargo-deny" >&2; exit 1; }
	$(CARGO) deny check $(CHECKS)

minimal: openblas ## Build with the oldest versions of the dependencies that Cargo.toml allows
	scripts/check-minimal-versions.sh

openblas:
	@scripts/install-openblas.sh

programs:
	@scripts/install-test-programs.sh
