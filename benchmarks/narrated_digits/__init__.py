"""Films of drifting digits with what is said about them: VideoBERT where the answers are known."""
