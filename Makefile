# Each target is one script that a developer can also run by hand.

.PHONY: demo test bench bench-vm fuzz lint build install-deps

demo:
	scripts/demo

test:
	scripts/test

bench:
	scripts/bench

bench-vm:
	scripts/bench-vm

fuzz:
	scripts/fuzz

lint:
	scripts/lint

build:
	scripts/build

install-deps:
	scripts/install-deps build test bench bench-vm
