"""Training of GS-LRM: scenes in memory, what a step draws, the loop, checkpoints."""
