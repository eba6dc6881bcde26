PYTHON ?= python3

.PHONY: demo bench test check format setup clean

demo bench test check format setup:
	@$(PYTHON) dev.py $@

clean:
	rm -rf .venv build .mypy_cache .pytest_cache .ruff_cache src/*.egg-info src/unifocal/sums/_native.so
