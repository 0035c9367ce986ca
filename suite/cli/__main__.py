"""`python -m suite.cli` runs the command line."""

from suite.cli.main import main

main()
