"""`python -m headrace_server` is the command `headrace`."""

from headrace_server.cli import main

if __name__ == "__main__":
    main()
