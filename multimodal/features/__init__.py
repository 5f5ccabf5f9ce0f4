"""Features of saved models: written as files, and probed; imported late, so that ``--help`` need not wait for torch."""
