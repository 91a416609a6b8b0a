"""`python -m sim` is the command `dovetail`."""

from sim.cli import main

if __name__ == "__main__":
    main()
