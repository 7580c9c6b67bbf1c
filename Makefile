# Each target works as the first command on a fresh Debian 12+ or Ubuntu 24.04+, and again.

SHELL := /bin/bash
.DEFAULT_GOAL := help

# BCC lives in the distribution's interpreter, so that is the one to use.
SYSTEM_PYTHON := /usr/bin/python3
VENV := .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.installed

PACKAGES := python3 python3-venv python3-bpfcc linux-libc-dev libbpf1 \
	iproute2 iputils-ping ethtool nftables kmod util-linux procps iperf3 tcpdump user-mode-linux gcc libc6-dev systemd

# A routing daemon for a test: of its package only the files, as installed it would run as a service.
BIRD := $(VENV)/bird

.PHONY: help setup packages demo test fuzz reliability lint format bench clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

setup: packages $(STAMP) ## install the distribution's packages and .venv with gre-xdp in it

packages:
	@missing=; for package in $(PACKAGES); do \
		[ "$$(dpkg-query -W -f '$${db:Status-Status}' $$package 2>/dev/null)" = installed ] \
			|| missing="$$missing $$package"; \
	done; \
	[ -z "$$missing" ] && exit 0; \
	if [ "$$(id -u)" -ne 0 ]; then \
		echo "These packages are missing:$$missing. Run once: sudo make setup" >&2; exit 1; \
	fi; \
	echo "Installing$$missing"; \
	export DEBIAN_FRONTEND=noninteractive; \
	apt-get update -qq && apt-get install -y -qq --no-install-recommends $$missing

$(STAMP): pyproject.toml Makefile | packages
	$(SYSTEM_PYTHON) -m venv --system-site-packages $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: ## TCP through an XDP GRE tunnel to a stock Linux kernel, with live counters
	@if [ "$$(id -u)" -ne 0 ]; then \
		echo "make demo needs root (it makes network namespaces and loads XDP programs): sudo make demo" >&2; \
		exit 1; \
	fi
	@$(MAKE) --no-print-directory setup
	@$(VENV)/bin/gre-xdp lab demo

test: setup $(BIRD) ## all tests; without root or BPF those that can run
	$(PYTHON) -m pytest

reliability: setup ## lose no packet whatever happens, and write that down in docs/reliability.md
	$(PYTHON) -m pytest -q tests/netns/test_hitless.py --write-reliability

fuzz: setup ## a million frames through the programs, here and on Linux 6.1; a million configuration files
	$(PYTHON) -m pytest -s tests/fuzz tests/linux61/test_fuzz.py tests/unit/test_config_fuzz.py \
		--frames 1000000 --files 1000000

$(BIRD): | $(STAMP)
	@if [ "$$(id -u)" -ne 0 ]; then echo "not root: no routing daemon to test with"; exit 0; fi; \
	set -e; directory=$$(mktemp -d); chmod 755 "$$directory"; trap "rm -rf $$directory" EXIT; cd "$$directory"; \
	export DEBIAN_FRONTEND=noninteractive; \
	apt-cache show bird2 >/dev/null 2>&1 || apt-get update -qq; \
	libraries=$$(apt-cache depends bird2 | sed -n 's/^ *Depends: \(lib[^ ]*\)$$/\1/p'); \
	apt-get install -y -qq --no-install-recommends $$libraries; \
	apt-get download -qq bird2; dpkg-deb -x bird2_*.deb "$(CURDIR)/$(BIRD)"

lint: setup ## ruff, mypy, clang-format
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/clang-format --dry-run -Werror bpf/*.[ch] gre_xdp/lab/*.c tests/traffic/*.c

format: setup ## let the formatters write
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/clang-format -i bpf/*.[ch] gre_xdp/lab/*.c tests/traffic/*.c

bench: setup ## cost per packet, side by side with the floor; of commands by number of tunnels
	@$(VENV)/bin/gre-xdp bench
	@$(VENV)/bin/gre-xdp bench --control

clean: ## remove what setup and the tests made in this directory
	rm -rf $(VENV) .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
