"""Dance types, hidden pitches and composers of real music."""
