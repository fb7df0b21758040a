"""`python -m execkit` is the command `execkit`, also where scripts are not on the path."""

from __future__ import annotations

from execkit.cli import main

if __name__ == "__main__":
    main(prog_name="execkit")
