"""`python -m flyball`: the same as the `flyball` command."""

from flyball.cli import main

if __name__ == "__main__":
    main()
