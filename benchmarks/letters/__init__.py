"""Spoken letters told across packages: other voices, other microphones."""
