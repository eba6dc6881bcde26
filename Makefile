PYTHON ?= python3

.PHONY: demo test check format setup clean

demo test check format setup:
	@$(PYTHON) dev.py $@

clean:
	rm -rf .venv build .mypy_cache .pytest_cache .ruff_cache
