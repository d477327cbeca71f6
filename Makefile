# Thin aliases for the scripts.
.PHONY: test demo

test:
	scripts/test

demo:
	scripts/demo
