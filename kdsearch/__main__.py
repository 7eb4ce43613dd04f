"""`python -m kdsearch`: the command line, also without the script on the PATH."""

from kdsearch.cli.main import main

if __name__ == "__main__":
    main()
