"""What the contract says of each kind of step: one module for each part of it."""
