"""The rules of Lockstep, pure and deterministic: no await, no clock, no input or output, no protobuf."""
