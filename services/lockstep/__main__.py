"""`python -m lockstep`: the command line where no script `lockstep` is on the path.

Here belongs the start only. Never here: a command (`cli`). The law: it does what `lockstep` does.
"""

from lockstep.cli.main import main

if __name__ == "__main__":
    main()
