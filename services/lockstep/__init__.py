"""Lockstep: a message broker with real session locks, for Kubernetes."""
