"""What differs between experiments and checkpoints, from what is stored. Free of torch."""
