"""What the machine offers and what a model costs on it: device, precision, FLOPs, energy, memory, latency."""
