"""``python -m gpnet_node``."""

from gpnet_node.cli import main

if __name__ == "__main__":
    main()
