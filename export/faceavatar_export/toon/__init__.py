"""The embedded pack: its drawings, captions, networks, training, scores and export."""
