"""`unifocal`, and `python -m unifocal.lab`: the command, or a word on what it needs."""

import sys


def main() -> None:
    """Run the command line if the extra that it needs is installed."""
    try:
        import typer  # noqa: F401
    except ModuleNotFoundError:
        sys.exit("The command unifocal needs the lab: pip install 'unifocal[lab]'")
    from unifocal.lab.cli import main as run

    run()


if __name__ == "__main__":
    main()
