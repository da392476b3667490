"""Where an experiment came from: code, command line, versions, host and seeds, without secrets. Torch-free."""
