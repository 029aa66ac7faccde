"""``python -m scaling_sim.cli``."""

from scaling_sim.cli import main

main()
