"""What an experiment is: descriptions and digests of model, config and samples. Pure, no I/O."""
