"""Clips of films: their features, clusters of these, and ids; its files are imported late, so that ``--help`` need not wait for torch."""
