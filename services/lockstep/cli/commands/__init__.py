"""The commands of `lockstep`, one module each."""
