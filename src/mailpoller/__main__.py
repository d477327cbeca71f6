"""``python -m mailpoller``: the same as the console script."""

from mailpoller.cli import main

if __name__ == "__main__":
    main()
