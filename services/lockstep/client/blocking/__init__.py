"""The blocking client. Programs import it from `lockstep`."""
