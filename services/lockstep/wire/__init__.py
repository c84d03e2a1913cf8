"""Between protobuf and the core: how values and errors of Lockstep travel."""
