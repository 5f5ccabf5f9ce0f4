"""Tags of words, pairs of paragraphs and questions, of GNOME's manual."""
