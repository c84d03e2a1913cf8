"""Who owns which partition, and how to reach the owner: the ports and their back ends."""
