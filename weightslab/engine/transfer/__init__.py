"""Transfer: experiments with their lineage go from one root into another, directly or in one file."""
