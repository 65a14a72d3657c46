"""`python -m rejoin`: the command line."""

from rejoin.command.app import main

if __name__ == "__main__":
    main()
