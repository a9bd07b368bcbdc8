"""What this machine is good at: fast arithmetic, memory accounting, CUDA graphs."""
