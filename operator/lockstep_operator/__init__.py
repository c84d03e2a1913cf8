"""The Kubernetes operator of Lockstep: keeps queues in the broker as custom resources declare them."""
