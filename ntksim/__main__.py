"""The `ntksim` command, also as `python -m ntksim`: it is imported where Ctrl-C is already understood."""

import sys


def main() -> int:
    """Run the command; returns the exit status."""
    try:
        from ntksim import cli

        return cli.main()
    except KeyboardInterrupt:  # while it was imported
        print("ntksim: error: interrupted; the same command goes on from here", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
