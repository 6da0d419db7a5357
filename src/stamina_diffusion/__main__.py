"""`python -m stamina_diffusion` is the `stamina` command."""

from .cli import main

main()
