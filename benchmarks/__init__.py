"""Figures of the package against its peers and the raw operation; `make bench` prints the tables."""
