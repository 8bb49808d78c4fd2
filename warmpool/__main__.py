"""`python -m warmpool`."""

from .cli import program

program()
