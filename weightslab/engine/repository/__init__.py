"""What is written where: names, manifests, the commit, the catalog. Free of torch."""
