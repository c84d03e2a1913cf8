"""`python -m lockstep_operator` is the command `lockstep-operator`."""

from lockstep_operator.main import main

if __name__ == "__main__":
    main()
