"""Which masked pretraining pays on few labelled digits, under equal compute."""
